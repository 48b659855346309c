"""What a turn costs: processor time of the front and the worker together, against the bare SDK in memory."""

from __future__ import annotations

import asyncio
import itertools
import time

from bench.processes import Process, running
from bench.ruler import Options, Spread, cpu_seconds, verdict
from bench.stage import Stage, open_stage
from bench.webhooks import Front

TARGET = 1.5
TURNS = 300  # a round: over a second of processor time, so that the clock's 10 ms are one percent
CONCURRENCY = 30
IDLE_FOR = 4.0  # seconds
MODEL = "fake-tool-lookup"
_numbers = itertools.count()


async def turn_cpu(options: Options) -> None:
    """Print processor milliseconds of one webhook answered with two model calls and one tool call, and the ratios."""
    await _measure(20, options.rounds(6))
    if not options.quick:
        await _measure(60, 3)


async def _measure(events: int, rounds: int) -> None:
    async with open_stage(MODEL, events=events) as stage:
        web, port = await stage.web()
        worker = await stage.worker()
        async with (
            running(*("-m", "bench.bare_sdk", stage.model_url, MODEL), log=stage.root / "bare.log") as bare,
            Front(port, CONCURRENCY) as front,
        ):
            await bare.first_line()
            await drive(stage, front, TURNS, CONCURRENCY)  # warm-up: imports, pools, prepared statements
            for kind in ("helper", "events"):
                await bare.ask(f"{kind} 50 {CONCURRENCY}")
            idle = await _idle_share(web, worker)
            print(f"  answers of {events} text events; idle {idle * 100:.1f} % of a core, subtracted")
            await _rounds(rounds, stage, front, (web, worker, bare), idle)


async def _rounds(
    rounds: int, stage: Stage, front: Front, processes: tuple[Process, Process, Process], idle: float
) -> None:
    web, worker, bare = processes
    parts: dict[str, list[float]] = {"web": [], "worker": [], "ours": [], "helper": [], "events": []}
    for _ in range(rounds):
        began, web_before, worker_before = time.monotonic(), cpu_seconds(web.pid), cpu_seconds(worker.pid)
        await drive(stage, front, TURNS, CONCURRENCY)
        web_used, worker_used = cpu_seconds(web.pid) - web_before, cpu_seconds(worker.pid) - worker_before
        resting = idle * (time.monotonic() - began)
        parts["web"].append(web_used / TURNS * 1000)
        parts["worker"].append(worker_used / TURNS * 1000)
        parts["ours"].append((web_used + worker_used - resting) / TURNS * 1000)
        for kind in ("helper", "events"):
            before = cpu_seconds(bare.pid)
            await bare.ask(f"{kind} {TURNS} {CONCURRENCY}")
            parts[kind].append((cpu_seconds(bare.pid) - before) / TURNS * 1000)
    spreads = {name: Spread.of(samples) for name, samples in parts.items()}
    for name, label in (
        ("ours", "front + worker, durable"),
        ("web", "  of it the front"),
        ("worker", "  of it the worker"),
        ("helper", "bare SDK, messages.stream"),
        ("events", "bare SDK, create(stream=True)"),
    ):
        print(f"    {label:32} {spreads[name].show()} ms")
    for kind, label in (("helper", "messages.stream"), ("events", "create(stream=True)")):
        ratio = Spread.of([ours / floor for ours, floor in zip(parts["ours"], parts[kind], strict=True)])
        judged = f"target <= {TARGET}: {verdict(ratio.median, TARGET)}" if kind == "helper" else ""
        print(f"    ratio to {label:23} {ratio.show()} x  {judged}")


async def _idle_share(*processes: Process) -> float:
    """Return what the processes use when there is nothing to do, as a share of one core."""
    pids = [process.pid for process in processes]
    before, began = cpu_seconds(*pids), time.monotonic()
    await asyncio.sleep(IDLE_FOR)
    return (cpu_seconds(*pids) - before) / (time.monotonic() - began)


async def drive(stage: Stage, front: Front, turns: int, concurrency: int) -> None:
    """Have ``turns`` messages of as many conversations answered, ``concurrency`` at a time."""
    left = iter(range(turns))

    async def one_after_another() -> None:
        for _ in left:
            thread = f"order-{next(_numbers)}"
            reply = stage.receiver.expect(thread)
            await front.send(thread)
            async with asyncio.timeout(60):
                await reply

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one_after_another())
