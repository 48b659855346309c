"""What a turn costs, and what it writes, when 10, 1,000 or 10,000 entries lie behind a summary."""

from __future__ import annotations

import itertools
import secrets
import time

import psycopg
from psycopg import sql

from bench.processes import Process
from bench.ruler import Options, Spread, cpu_seconds
from bench.stage import Stage, open_stage
from bench.webhooks import Front
from pyflue.entries import AnswerEntry, Entry, InputEntry, SummaryEntry, encode_entry, kind_of_entry
from pyflue.ids import session_id
from pyflue.messages import ModelAnswer, TextPart

LENGTHS = (10, 1_000, 10_000)  # entries behind the summary
CONVERSATIONS = 20  # of each length
TURNS = 120  # a round and length
SIZES = (200, 2_000, 20_000)  # characters of a message, which the answer repeats
TABLES = ("entries", "events", "dispatches", "admissions", "outbox", "sessions")

INSERT = """
insert into entries (session_id, seq, dispatch_id, kind, token, body, created_at)
select %(session)s, s.head + e.n, d.id, e.kind, s.lease_token, e.body, now()
  from sessions s
  join dispatches d on d.session_id = s.id,
       unnest(%(kinds)s::text[], %(bodies)s::bytea[]) with ordinality as e (kind, body, n)
 where s.id = %(session)s
"""
MOVE_HEAD = "update sessions set head = head + %(count)s, summary_seq = head + %(count)s where id = %(session)s"
_threads = itertools.count()


async def history(options: Options) -> None:
    """Print processor time and wait of a turn by the length of its history, and bytes written by size of message."""
    async with open_stage("fake-echo") as stage:
        web, port = await stage.web()
        worker = await stage.worker()
        async with Front(port, 8) as front:
            threads = {length: await _seed(stage, front, length) for length in LENGTHS}
            await _costs(options, stage, front, (web, worker), threads)
            await _storage(options, stage, front)


async def _seed(stage: Stage, front: Front, length: int) -> list[str]:
    """Make conversations with ``length`` entries behind a summary."""
    said = ModelAnswer((TextPart("It left the warehouse on Tuesday. " * 8),), "end_turn", "fake-echo")
    old: list[Entry] = [
        InputEntry(f"Question {number} about the order", "user") if number % 2 == 0 else AnswerEntry.of(said)
        for number in range(length)
    ]
    lines = [*old, SummaryEntry("The customer asked about an order.")]
    kinds, bodies = [kind_of_entry(entry) for entry in lines], [encode_entry(entry) for entry in lines]
    threads = [f"history-{next(_threads)}" for _ in range(CONVERSATIONS)]
    for thread in threads:
        await _answered(stage, front, thread, "Hello")
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as connection:
        for thread in threads:
            session = session_id("orders", f"standard:{thread}")
            await connection.execute(INSERT, {"session": session, "kinds": kinds, "bodies": bodies})
            await connection.execute(MOVE_HEAD, {"session": session, "count": len(lines)})
        await connection.execute("vacuum analyze entries")
    return threads


async def _costs(
    options: Options, stage: Stage, front: Front, processes: tuple[Process, Process], threads: dict[int, list[str]]
) -> None:
    pids = [process.pid for process in processes]
    costs: dict[int, list[float]] = {length: [] for length in LENGTHS}
    waits: dict[int, list[float]] = {length: [] for length in LENGTHS}
    for number in range(options.rounds(6)):
        turned = number % len(LENGTHS)
        for length in (*LENGTHS[turned:], *LENGTHS[:turned]):  # so that none always comes first
            before = cpu_seconds(*pids)
            for turn in range(TURNS):
                # One at a time; each conversation gets a few short turns, so what they add stays small.
                waits[length].append(await _answered(stage, front, threads[length][turn % CONVERSATIONS], "Next?"))
            costs[length].append((cpu_seconds(*pids) - before) / TURNS * 1000)
    for length in LENGTHS:
        ratio = Spread.of([a / b for a, b in zip(costs[length], costs[LENGTHS[0]], strict=True)])
        print(
            f"    {length:6} entries behind the summary: {Spread.of(costs[length]).show()} CPU-ms a turn, "
            f"{ratio.show()} x of {LENGTHS[0]}; reply {Spread.of(waits[length]).percentiles()} ms"
        )


async def _storage(options: Options, stage: Stage, front: Front) -> None:
    turns = options.rounds(45)
    for size in SIZES:
        before = await _bytes(stage)
        for _ in range(turns):
            await _answered(stage, front, f"size-{next(_threads)}", secrets.token_hex(size // 2))
        written = {table: (size_now - before[table]) / turns for table, size_now in (await _bytes(stage)).items()}
        total = sum(written.values())
        parts = ", ".join(f"{table} {count:.0f}" for table, count in written.items())
        print(f"    {size:6} characters in and out: {total:.0f} bytes of rows a turn ({parts})")


async def _bytes(stage: Stage) -> dict[str, int]:
    """Return the size of all rows of each table, as stored."""
    async with await psycopg.AsyncConnection.connect(stage.dsn) as connection:
        sizes: dict[str, int] = {}
        for table in TABLES:
            query = sql.SQL("select coalesce(sum(pg_column_size(t.*)), 0) from {} t").format(sql.Identifier(table))
            row = await (await connection.execute(query)).fetchone()
            sizes[table] = int(row[0]) if row else 0
        return sizes


async def _answered(stage: Stage, front: Front, thread: str, text: str) -> float:
    """Return the milliseconds until the reply."""
    reply = stage.receiver.expect(thread)
    began = time.monotonic()
    await front.send(thread, text)
    return (await reply - began) * 1000
