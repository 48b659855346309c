"""Many conversations at once in one worker process, against the bare SDK waiting for the same model."""

from __future__ import annotations

import time

from bench.processes import Process, running
from bench.ruler import Options, Spread, resident_megabytes, verdict
from bench.stage import Stage, open_stage
from bench.turn_cpu import drive
from bench.webhooks import Front

TARGET = 1.2
AT_ONCE = 500
MOST = 1_000
DELAY_MS = 2_000  # of each of the two model calls
MODEL = "fake-tool-lookup"


async def conversations(options: Options) -> None:
    """Print the wall time of 500 conversations of two slow model calls each, its ratio, and that 1,000 finish."""
    async with open_stage(MODEL, delay_ms=DELAY_MS) as stage:
        _, port = await stage.web()
        worker = await stage.worker(turns=MOST)
        async with (
            running(*("-m", "bench.bare_sdk", stage.model_url, MODEL), log=stage.root / "bare.log") as bare,
            Front(port, 32) as front,
        ):
            await bare.first_line()
            await drive(stage, front, 50, 50)
            await bare.ask("helper 50 50")
            await _rounds(options, stage, front, bare)
            took = await _ours(stage, front, MOST)
            print(f"    {MOST} at once: all finished in {took:.1f} s")
            print(f"    memory of the worker after that: {resident_megabytes(worker.pid):.0f} MB resident")
            print(f"    memory of the bare SDK's process: {resident_megabytes(bare.pid):.0f} MB resident")


async def _rounds(options: Options, stage: Stage, front: Front, bare: Process) -> None:
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(options.rounds(3)):
        ours.append(await _ours(stage, front, AT_ONCE))
        floor.append(float(await bare.ask(f"helper {AT_ONCE} {AT_ONCE}")))
    ratio = Spread.of([a / b for a, b in zip(ours, floor, strict=True)])
    print(f"    {AT_ONCE} at once, front and worker: {Spread.of(ours).show()} s")
    print(f"    {AT_ONCE} at once, bare SDK:         {Spread.of(floor).show()} s")
    print(f"    ratio {ratio.show()} x  target <= {TARGET}: {verdict(ratio.median, TARGET)}")


async def _ours(stage: Stage, front: Front, count: int) -> float:
    """Return the seconds from the first webhook to the last reply."""
    began = time.monotonic()
    await drive(stage, front, count, count)
    return time.monotonic() - began
