"""Accepted webhooks a second, one front process on Postgres, against a minimal ASGI application."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import msgspec
import psycopg
from psycopg import sql

from bench.load import Outcome
from bench.processes import Process, running
from bench.ruler import Options, Spread, cpu_seconds, verdict
from bench.stage import Stage, open_stage
from tests.services import free_port

TARGET = 1.0
REQUESTS = 2_000  # a round
CONNECTIONS = 64
SLOW_FLUSH = 2_000  # microseconds
STEADY_RATE = 100.0  # requests a second
STEADY_FOR = 8.0  # seconds


async def front(options: Options) -> None:
    """Print accepted requests a second of both, their ratio, and how long one waits at 100 a second.

    Once on the server's own disk, and once with commits made to wait as long as a cloud's disk takes to flush.
    """
    for flush in (0, SLOW_FLUSH):
        print(f"  {flush / 1000:.0f} ms added to every flush" if flush else "  the disk as it is")
        await _measure(options, flush)


async def _measure(options: Options, flush: int) -> None:
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(open_stage("fake-echo"))
        await _slow_down(stage, flush)
        web, port = await stage.web()
        floor_port = free_port()
        floor = await stack.enter_async_context(_minimal(stage, floor_port))
        await _listening(floor_port)
        load = await stack.enter_async_context(running("-m", "bench.load", log=stage.root / "load.log"))
        await load.first_line()
        sides = {"front": (web, port), "minimal ASGI": (floor, floor_port)}
        for _, at in sides.values():
            await _ask(load, at, 500, CONNECTIONS, 0)
        await _compare(options, load, sides)
        for name, (_, at) in sides.items():
            outcome = await _ask(load, at, int(STEADY_RATE * STEADY_FOR), CONNECTIONS, STEADY_RATE)
            print(f"    {name:14} at {STEADY_RATE:.0f}/s: {Spread.of(outcome.milliseconds).percentiles()} ms")


async def _slow_down(stage: Stage, flush: int) -> None:
    """Have the server wait before each flush of the log, as for a slower disk; connections made from now on obey."""
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        for setting, value in (("commit_delay", flush), ("commit_siblings", 0)):
            await connection.execute(
                sql.SQL("alter database {} set {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
            )


async def _compare(options: Options, load: Process, sides: dict[str, tuple[Process, int]]) -> None:
    rates: dict[str, list[float]] = {name: [] for name in sides}
    costs: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds(5)):
        for name, (process, port) in sides.items():
            before = cpu_seconds(process.pid)
            outcome = await _ask(load, port, REQUESTS, CONNECTIONS, 0)
            costs[name].append((cpu_seconds(process.pid) - before) / REQUESTS * 1_000_000)
            rates[name].append(REQUESTS / outcome.seconds)
    for name in sides:
        print(f"    {name:14} {Spread.of(rates[name]).show(0)} /s, {Spread.of(costs[name]).show(0)} CPU-us a request")
    ours, floor = rates.values()
    ratio = Spread.of([a / b for a, b in zip(ours, floor, strict=True)])
    print(f"    ratio of rates {ratio.show()} x  target >= {TARGET}: {verdict(ratio.median, TARGET, at_most=False)}")


def _minimal(stage: Stage, port: int) -> AbstractAsyncContextManager[Process]:
    return running(
        *("-m", "uvicorn", "bench.minimal_asgi:app", "--port", str(port), "--no-access-log", "--log-level", "warning"),
        log=stage.root / "minimal.log",
        env={"BENCH_DSN": stage.dsn},
    )


async def _ask(load: Process, port: int, requests: int, connections: int, rate: float) -> Outcome:
    answer = await load.ask(f"{port} {requests} {connections} {rate}")
    outcome = msgspec.json.decode(answer, type=Outcome)
    if outcome.refused:
        raise RuntimeError(f"{outcome.refused} of {requests} requests were not accepted")
    return outcome


async def _listening(port: int) -> None:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise RuntimeError("the minimal application does not listen")
