"""How long a killed worker's conversations wait until another worker's model call, with default settings."""

from __future__ import annotations

import asyncio
import time

from bench.fake_model import calls, wait_until_called
from bench.ruler import Options, Spread, verdict
from bench.stage import Stage, open_stage
from bench.webhooks import Front

P50, MOST = 5.0, 8.0  # seconds
SESSIONS = 30
DELAY_MS = 60_000  # of the model: every conversation is in the middle of its call when the worker dies


async def recovery(options: Options) -> None:
    """Print the seconds from SIGKILL to the next model call of each conversation."""
    waits: list[float] = []
    rounds = options.rounds(3)
    for _ in range(rounds):
        async with open_stage("fake-echo", delay_ms=DELAY_MS, reply="none") as stage:
            waits += await _one_death(stage)
    spread = Spread.of(waits)
    print(f"    {rounds} workers killed with {SESSIONS} conversations each, none of them lost")
    print(
        f"    SIGKILL -> next model call: p50 {spread.median:.2f}, max {spread.samples[-1]:.2f} s  "
        f"target p50 <= {P50:.0f}: {verdict(spread.median, P50)}, max <= {MOST:.0f}: {verdict(spread.samples[-1], MOST)}"
    )


async def _one_death(stage: Stage) -> list[float]:
    _, port = await stage.web()
    doomed = await stage.worker()
    async with Front(port, 4) as front:
        await asyncio.gather(*(front.send(f"order-{number}", f"Where is {number}?") for number in range(SESSIONS)))
    await wait_until_called(stage.model_url, SESSIONS)
    await stage.worker()
    await asyncio.sleep(1.0)  # the survivor has beaten its heart and looked around once
    killed_at = time.time()
    doomed.kill()
    await wait_until_called(stage.model_url, 2 * SESSIONS)
    again = [call for call in await calls(stage.model_url) if call.at > killed_at]
    if len({call.text for call in again}) != SESSIONS:
        raise RuntimeError(f"{len(again)} calls after the death for {SESSIONS} conversations")
    return [call.at - killed_at for call in again]
