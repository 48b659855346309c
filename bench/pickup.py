"""How long an idle stage takes to begin: from the commit to the model's first call, and from webhook to reply."""

from __future__ import annotations

import asyncio
import random
import time

import psycopg

from bench.fake_model import calls
from bench.ruler import Options, Spread, verdict
from bench.stage import Stage, open_stage
from bench.webhooks import Front

PICK_UP_P50, PICK_UP_P95, REPLY_P50 = 10.0, 25.0, 25.0  # milliseconds
SAMPLES = 100
GAPS = (0.1, 0.4)  # seconds between two messages, at random, so that everything is idle and no timer is hit in step
ACCEPTED = (
    "select instance_id, extract(epoch from accepted_at) from dispatches d join sessions s on s.id = d.session_id"
)


async def pickup(options: Options) -> None:
    """Print both waits, with one model call an answer and with two and a tool call."""
    for model, label in (("fake-echo", "one model call"), ("fake-tool-lookup", "two model calls and a tool call")):
        async with open_stage(model) as stage:
            _, port = await stage.web()
            await stage.worker()
            async with Front(port, 2) as front:
                for number in range(20):
                    await _answered(stage, front, f"warm-{number}")
                waits = [
                    await _after_a_gap(stage, front, f"idle-{number}") for number in range(options.rounds(SAMPLES))
                ]
            begun = Spread.of(await _pick_ups(stage))
        replies = Spread.of(waits)
        met = f"target p50 <= {PICK_UP_P50:.0f}: {verdict(begun.median, PICK_UP_P50)}, "
        met += f"p95 <= {PICK_UP_P95:.0f}: {verdict(begun.percentile(0.95), PICK_UP_P95)}"
        print(f"  {label}")
        print(f"    commit -> first model call: {begun.percentiles()} ms  {met}")
        print(
            f"    webhook -> reply:           {replies.percentiles()} ms  "
            f"target p50 <= {REPLY_P50:.0f}: {verdict(replies.median, REPLY_P50)}"
        )


async def _after_a_gap(stage: Stage, front: Front, thread: str) -> float:
    await asyncio.sleep(random.uniform(*GAPS))
    return await _answered(stage, front, thread)


async def _answered(stage: Stage, front: Front, thread: str) -> float:
    """Return the milliseconds from sending a webhook to receiving the reply."""
    reply = stage.receiver.expect(thread)
    began = time.monotonic()
    await front.send(thread, f"Where is {thread}?")
    async with asyncio.timeout(30):
        return (await reply - began) * 1000


async def _pick_ups(stage: Stage) -> list[float]:
    """Match each dispatch with its first model call.

    ``accepted_at`` is the beginning of the statement that admitted it, so the commit itself is counted too.
    """
    first: dict[str, float] = {}
    for call in await calls(stage.model_url):
        thread = call.text.rpartition("Where is ")[2].partition("?")[0]
        first.setdefault(thread, call.at)
    async with await psycopg.AsyncConnection.connect(stage.dsn) as connection:
        rows = await (await connection.execute(ACCEPTED)).fetchall()
    accepted = {str(row[0]).removeprefix("standard:"): float(row[1]) for row in rows}
    return [(first[thread] - at) * 1000 for thread, at in accepted.items() if thread.startswith("idle-")]
