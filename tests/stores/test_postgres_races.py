"""What two or more processes may do to one Postgres database at the same moment, and what must hold afterwards.

The processes are real ones (``race_worker.py``), so that a paused or killed one is paused or killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pyflue.dispatches import SessionAddress
from pyflue.errors import SchemaError
from pyflue.ids import SessionId
from pyflue.stores.postgres import PostgresStore
from tests.services import OwnPostgres, fresh_database

SCRIPT = Path(__file__).with_name("race_worker.py")
ROOT = SCRIPT.parents[2]


class RemoteError(Exception):
    """An operation failed in the other process; the text is the exception's class name."""


class Process:
    """One ``race_worker.py``; ``await process("op", name=value)`` runs an operation there."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, dsn: str) -> Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPT),
            dsn,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            limit=2**24,
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        return cls(child)

    def send(self, signal_number: int) -> None:
        self._child.send_signal(signal_number)

    async def __call__(self, op: str, **args: object) -> Any:
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"id": number, "op": op, "args": args}).encode() + b"\n")
        return await asyncio.wait_for(future, 60)

    async def _read(self) -> None:
        assert self._child.stdout is not None
        while line := await self._child.stdout.readline():
            reply = json.loads(line)
            future = self._waiting.pop(reply["id"])
            if "error" in reply:
                future.set_exception(RemoteError(reply["error"]))
            else:
                future.set_result(reply["ok"])

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._child.kill()
        await self._child.wait()
        await self._reading


Start = Callable[[], Awaitable[Process]]


@pytest.fixture
def dsn(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server) as dsn:
        asyncio.run(PostgresStore(dsn).migrate())
        with psycopg.connect(dsn, autocommit=True) as connection:
            # Races are about order, not about disks: without waiting for them, more happens in the same seconds.
            name = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL("alter database {} set synchronous_commit = off").format(name))
        yield dsn


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(dsn, pool=3)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def processes(dsn: str) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start() -> Process:
        process = await Process.start(dsn)
        started.append(process)
        return process

    yield start
    for process in started:
        await process.end()


def session(thread: str) -> SessionId:
    return SessionAddress("echo", thread).id


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Ask until the condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what is awaited is in another process
            await asyncio.sleep(0.02)


async def fetch(dsn: str, query: str, *params: object) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        return await (await connection.execute(query, params)).fetchall()  # type: ignore[arg-type]  # test SQL


STRANDED = "select count(*) from sessions where unsettled > 0 and due_at is null and lease_owner is null"


async def test_a_mailbox_claimed_by_two_processes_at_once_goes_to_exactly_one(processes: Start, dsn: str) -> None:
    one, two = await asyncio.gather(processes(), processes())
    await asyncio.gather(one("register"), two("register"))
    threads = [f"t{number}" for number in range(200)]
    await one("admit", threads=threads)

    sessions = [session(thread) for thread in threads]
    mine, yours = await asyncio.gather(one("claim_each", sessions=sessions), two("claim_each", sessions=sessions[::-1]))

    assert sorted(mine + yours) == sorted(sessions)
    assert mine
    assert yours
    assert await fetch(dsn, "select distinct lease_token from sessions") == [(1,)]


async def test_an_admission_elsewhere_neither_fences_nor_delays_a_running_turn(
    processes: Start, store: PostgresStore
) -> None:
    holder, front = await asyncio.gather(processes(), processes())
    await holder("register")
    await holder("admit", threads=["t"])
    assert await holder("claim", session=session("t")) == 1
    dispatch = await holder("begin", session=session("t"))

    slowest, admitted = await asyncio.gather(
        holder("append", session=session("t"), dispatch=dispatch, times=200),
        front("admit_in_turn", thread="t", times=200),
    )

    assert slowest < 1.0
    assert len(set(admitted)) == 200
    assert await store.journal.head(session("t")) == (200, 1)
    assert [line.seq for line in await store.journal.load(session("t"))] == list(range(1, 201))
    assert await holder("release", session=session("t")) is False


async def test_of_two_processes_settling_one_dispatch_exactly_one_does(processes: Start, store: PostgresStore) -> None:
    one, two = await asyncio.gather(processes(), processes())
    await one("register")

    for number in range(20):
        thread = f"t{number}"
        [dispatch] = await one("admit", threads=[thread])
        token = await one("claim", session=session(thread))
        await two("adopt", session=session(thread), token=token)
        results = await asyncio.gather(
            one("settle", session=session(thread), dispatch=dispatch),
            two("settle", session=session(thread), dispatch=dispatch),
            return_exceptions=True,
        )

        assert [result for result in results if result is True] == [True]
        assert str(next(result for result in results if result is not True)) in {"LeaseLost", "StoreError"}
        assert [event.type for event in await store.events.read(dispatch)] == ["dispatch.accepted", "dispatch.settled"]
        assert len(await store.journal.load(session(thread))) == 1
        assert len(await store.views.outbox(session_id=session(thread))) == 1


async def test_a_settlement_repeated_while_the_first_is_still_under_way_settles_once(
    processes: Start, store: PostgresStore, dsn: str
) -> None:
    worker = await processes()
    await worker("register")
    [dispatch, behind] = await worker("admit", threads=["t", "t"])
    await worker("claim", session=session("t"))

    async with await psycopg.AsyncConnection.connect(dsn) as stall:
        await stall.execute("select 1 from sessions for update")
        asked = [worker("settle", session=session("t"), dispatch=dispatch, last=[]) for _ in range(2)]
        settling = asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: _waiting_for_locks(dsn, 2))
        await stall.rollback()

    assert sorted(map(str, await settling)) == ["StoreError", "True"]
    assert [event.type for event in await store.events.read(dispatch)] == ["dispatch.accepted", "dispatch.settled"]
    assert len(await store.views.outbox(session_id=session("t"))) == 1
    row = await store.views.session(session("t"))
    assert row is not None
    assert row.unsettled == 1, f"{behind} is still there to be worked"


async def _waiting_for_locks(dsn: str, number: int) -> bool:
    [(waiting,)] = await fetch(
        dsn,
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
    )
    return waiting == number


async def test_a_write_with_a_stale_token_is_refused_however_it_races_the_takeover(
    processes: Start, store: PostgresStore
) -> None:
    old, new = await asyncio.gather(processes(), processes())
    old_worker, _ = await asyncio.gather(old("register"), new("register"))
    [dispatch] = await old("admit", threads=["t"])
    await old("claim", session=session("t"))

    writing = asyncio.create_task(old("append", session=session("t"), dispatch=dispatch, times=100_000))
    await until(lambda: _has_entries(store, 20))
    await store.fleet.retire(old_worker)
    token = await new("claim", session=session("t"))
    await new("append", session=session("t"), dispatch=dispatch, times=20)

    with pytest.raises(RemoteError, match="LeaseLost"):
        await writing
    lines = await store.journal.load(session("t"))
    tokens = [line.token for line in lines]
    assert token == 3  # one for the claim, one for freeing it, one for the new claim
    assert tokens == sorted(tokens)
    assert tokens.count(3) == 20
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))


async def _has_entries(store: PostgresStore, number: int) -> bool:
    head, _ = await store.journal.head(session("t"))
    return head >= number


async def test_a_holder_paused_for_twice_its_lease_is_taken_over_and_its_late_write_refused(
    processes: Start, store: PostgresStore
) -> None:
    lease = 1.0
    paused, rescuer = await asyncio.gather(processes(), processes())
    worker, _ = await asyncio.gather(paused("register", lease=lease, every=0.2), rescuer("register", every=0.2))
    [dispatch] = await paused("admit", threads=["t"])
    await paused("claim", session=session("t"))
    await paused("begin", session=session("t"))

    paused.send(signal.SIGSTOP)
    stopped_at = time.monotonic()
    reaped: list[str] = []

    async def reap() -> bool:
        reaped.extend(await rescuer("reap", grace=0.3))
        return bool(reaped)

    await until(reap)
    assert reaped == [worker]
    assert time.monotonic() - stopped_at > lease - 0.25, "its lock was held all along: only the lease may end it"
    assert await rescuer("free") == [session("t")]
    assert await rescuer("claim", session=session("t")) == 3
    await rescuer("append", session=session("t"), dispatch=dispatch)
    await asyncio.sleep(max(0.0, 2 * lease - (time.monotonic() - stopped_at)))
    paused.send(signal.SIGCONT)

    with pytest.raises(RemoteError, match="LeaseLost"):
        await paused("append", session=session("t"), dispatch=dispatch)
    assert await paused("beat") is False
    assert [line.token for line in await store.journal.load(session("t"))] == [3]


async def test_a_worker_that_loses_its_liveness_connection_is_not_reaped_and_takes_the_lock_back(
    processes: Start, dsn: str
) -> None:
    alive, rescuer = await asyncio.gather(processes(), processes())
    await alive("register", every=0.1)
    [(backend,)] = await fetch(dsn, _LOCK_HOLDERS)

    await fetch(dsn, "select pg_terminate_backend(%s)", backend)
    reaped: list[str] = []

    async def locked_again() -> bool:
        reaped.extend(await rescuer("reap", grace=1.5))
        holders = await fetch(dsn, _LOCK_HOLDERS)
        return holders not in ([], [(backend,)])

    await until(locked_again)
    reaped.extend(await rescuer("reap", grace=1.5))

    assert reaped == []
    assert await alive("beat") is True


_LOCK_HOLDERS = """
select l.pid from pg_locks l
 where l.locktype = 'advisory' and l.granted and l.database = (select oid from pg_database where datname = current_database())
"""


async def test_a_killed_worker_is_dead_after_the_grace_time_long_before_its_lease_ends(processes: Start) -> None:
    killed, rescuer = await asyncio.gather(processes(), processes())
    worker, _ = await asyncio.gather(killed("register", lease=600.0, every=0.1), rescuer("register", lease=600.0))
    await killed("admit", threads=["t"])
    await killed("claim", session=session("t"))

    killed.send(signal.SIGKILL)
    reaped: list[str] = []

    async def reap() -> bool:
        reaped.extend(await rescuer("reap", grace=0.5))
        return bool(reaped)

    await until(reap)
    assert reaped == [worker]
    assert await rescuer("free") == [session("t")]
    assert await rescuer("claim", session=session("t")) == 3


async def test_one_key_admitted_first_a_hundred_times_at_once_is_one_dispatch_with_a_hundred_equal_receipts(
    processes: Start, dsn: str
) -> None:
    fronts = await asyncio.gather(*(processes() for _ in range(2)))

    for number in range(10):
        key = f"key-{number}"
        answers = await asyncio.gather(*(front("admit_key", thread="t", key_sets=[[key]] * 50) for front in fronts))
        receipts = [tuple(receipt) for answer in answers for receipt in answer]

        assert len(receipts) == 100
        assert len({(dispatch, accepted) for dispatch, accepted, _ in receipts}) == 1
        assert [duplicate for *_, duplicate in receipts].count(False) == 1
    assert await fetch(dsn, "select count(*), count(distinct position), max(position) from dispatches") == [
        (10, 10, 10)
    ]
    assert await fetch(dsn, "select mailbox_head, unsettled from sessions") == [(10, 10)]
    assert await fetch(dsn, "select count(*) from events") == [(10,)]


async def test_events_that_share_only_some_of_their_keys_never_become_two_dispatches_of_one_key(
    processes: Start, dsn: str
) -> None:
    fronts = await asyncio.gather(*(processes() for _ in range(2)))
    sets = [[f"{n}-a", f"{n}-b"] for n in range(40)] + [[f"{n}-b", f"{n}-c"] for n in range(40)]

    answers = await asyncio.gather(
        fronts[0]("admit_key", thread="t", key_sets=sets), fronts[1]("admit_key", thread="u", key_sets=sets[::-1])
    )

    receipts = [tuple(receipt) for answer in answers for receipt in answer]
    assert len(receipts) == 160
    [(dispatches,)] = await fetch(dsn, "select count(*) from dispatches")
    assert [duplicate for *_, duplicate in receipts].count(False) == dispatches
    # Each middle key belongs to exactly one dispatch, and no dispatch was made without all of its keys.
    assert await fetch(dsn, "select count(*) from admissions where right(key, 2) = '-b'") == [(40,)]
    assert await fetch(dsn, "select distinct count(*) from admissions group by dispatch_id") == [(2,)]
    assert dispatches == 40


@pytest.fixture
async def patient(dsn: str) -> None:
    """Two statements that lock each other out stay so: the server would undo one after a second, and we repeat it."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        await connection.execute(sql.SQL("alter database {} set deadlock_timeout = '1h'").format(name))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("give_up", ["retire", "disown", "register"])
async def test_giving_sessions_up_and_admitting_to_them_never_lock_each_other_out(
    processes: Start, dsn: str, give_up: str
) -> None:
    holder, front = await asyncio.gather(processes(), processes())
    await holder("register")
    low, high = sorted(["t1", "t2"], key=session)
    for thread in (high, low):  # so that the table's own order is not that of the ids
        await front("admit", threads=[thread])
        await holder("claim", session=session(thread))

    async with await psycopg.AsyncConnection.connect(dsn) as stall:
        await stall.execute("select 1 from sessions where id = %s for update", (session(low),))
        admitting = asyncio.create_task(front("admit", threads=[low, high]))
        await until(lambda: _waiting_for_locks(dsn, 1))
        giving_up = asyncio.create_task(holder(give_up))
        await until(lambda: _waiting_for_locks(dsn, 2))
        await stall.rollback()

    async with asyncio.timeout(10):
        assert len(await admitting) == 2
        await giving_up
    assert await fetch(dsn, "select unsettled, lease_owner from sessions") == [(2, None)] * 2


@pytest.mark.usefixtures("patient")
async def test_two_events_with_the_same_keys_the_other_way_round_never_lock_each_other_out(
    processes: Start, dsn: str
) -> None:
    fronts = await asyncio.gather(processes(), processes())

    async with await psycopg.AsyncConnection.connect(dsn) as stall:
        await stall.execute("insert into admissions values ('race', 'a', 'x', null, now())")
        asked = [
            front("admit_key", thread="t", key_sets=[keys]) for front, keys in zip(fronts, ("ab", "ba"), strict=True)
        ]
        admitting = asyncio.gather(*asked)
        await until(lambda: _waiting_for_locks(dsn, 2))
        await stall.rollback()

    async with asyncio.timeout(10):
        receipts = [receipts[0] for receipts in await admitting]
    assert sorted(duplicate for *_, duplicate in receipts) == [False, True]


async def test_ten_thousand_releases_against_admissions_strand_nothing(processes: Start, dsn: str) -> None:
    holder, front = await asyncio.gather(processes(), processes())
    await holder("register")
    rounds, width = 100, 100  # a round's sessions are put off by a day at its end, so that the next claims its own
    arrived = 0

    for number in range(rounds):
        threads = [f"t{number}-{n}" for n in range(width)]
        await _seed_empty_due_sessions(dsn, threads)
        sessions = await holder("claim_due", limit=width)
        assert len(sessions) == width
        await holder("saw", sessions=sessions, counter=0)
        pieces = [threads[start : start + 10] for start in range(0, width, 10)]
        *_, again = await asyncio.gather(
            *(front("admit", threads=piece) for piece in pieces), holder("release_each", sessions=sessions)
        )
        arrived += len(again)
        if again:
            await holder("read_each", sessions=again)
            assert await holder("release_each", sessions=again) == []
        assert await fetch(dsn, STRANDED) == [(0,)]
        await fetch(dsn, "update sessions set due_at = now() + interval '1 day' where unsettled > 0 returning 1")

        if number == rounds - 1:
            assert 0 < arrived < rounds * width, "the race was never run: one side always came first"
    assert await fetch(dsn, "select count(*), sum(unsettled) from sessions") == [(rounds * width, rounds * width)]


async def _seed_empty_due_sessions(dsn: str, threads: list[str]) -> None:
    """Make sessions that are due with nothing in them, as an abort that came too late leaves them."""
    await fetch(
        dsn,
        """insert into sessions (id, agent, instance_id, name, due_at, created_at, updated_at)
           select id, 'echo', thread, 'default', now(), now(), now()
             from unnest(%s::text[], %s::text[]) as s (id, thread) returning 1""",
        [session(thread) for thread in threads],
        threads,
    )


async def test_no_wake_up_is_lost_when_several_processes_admit_and_drain_without_any_rescue(
    processes: Start, dsn: str
) -> None:
    group = await asyncio.gather(*(processes() for _ in range(3)))
    await asyncio.gather(*(process("register") for process in group))
    threads = [f"t{number}" for number in range(150)]

    worked = await asyncio.gather(*(process("storm", threads=threads, times=3, callers=6) for process in group))

    assert sum(worked) == 1_350
    assert await fetch(dsn, STRANDED) == [(0,)]
    assert await fetch(dsn, "select count(*) from dispatches where status <> 'completed'") == [(0,)]
    assert await fetch(dsn, "select count(*) from sessions where unsettled <> 0 or lease_owner is not null") == [(0,)]
    assert await fetch(dsn, "select count(*), count(distinct dispatch_id) from entries") == [(1_350, 1_350)]


async def test_commit_order_is_queue_order(processes: Start, dsn: str) -> None:
    fronts = await asyncio.gather(*(processes() for _ in range(3)))
    admitting = asyncio.gather(*(front("admit_in_turn", thread="t", times=100) for front in fronts))

    while not admitting.done():
        [(seen, highest)] = await fetch(dsn, "select count(*), coalesce(max(position), 0) from dispatches")
        assert seen == highest, "a lower position became visible after a higher one"

    positions = dict(await fetch(dsn, "select id, position from dispatches"))
    for ids in admitting.result():
        own = [positions[dispatch] for dispatch in ids]
        assert own == sorted(own)
    assert sorted(positions.values()) == list(range(1, 301))


async def test_six_processes_that_migrate_at_once_apply_each_migration_once(fresh_postgres_dsn: str) -> None:
    stores = [PostgresStore(fresh_postgres_dsn) for _ in range(6)]
    with pytest.raises(SchemaError, match="pyflue migrate"):
        await stores[0].open()

    applied = await asyncio.gather(*(store.migrate() for store in stores))

    assert sorted(map(len, applied)) == [0] * 5 + [max(map(len, applied))]
    assert max(map(len, applied)) >= 1
    await stores[0].open()
    await stores[0].close()


async def test_a_restart_of_the_server_costs_nobody_a_lease_and_loses_nothing(tmp_path: Path) -> None:
    with OwnPostgres() as server:
        await PostgresStore(server.dsn).migrate()
        holder, rescuer, front = await asyncio.gather(*(Process.start(server.dsn) for _ in range(3)))
        try:
            await _restart_under_load(server, holder, rescuer, front)
        finally:
            for process in (holder, rescuer, front):
                await process.end()


async def _restart_under_load(server: OwnPostgres, holder: Process, rescuer: Process, front: Process) -> None:
    await asyncio.gather(holder("register", lease=30.0, every=0.1), rescuer("register", lease=30.0, every=0.1))
    [dispatch] = await holder("admit", threads=["t"])
    await holder("claim", session=session("t"))
    await holder("append", session=session("t"), dispatch=dispatch)
    admitting = asyncio.create_task(front("admit_until_stopped", thread="u"))

    for _ in range(2):
        failures = await holder("beats_failed")
        await asyncio.to_thread(server.kill)
        await until(lambda before=failures: _more(holder, before))
        await asyncio.to_thread(server.start)
        await until(lambda: _beats(holder))
        await until(lambda: _beats(rescuer))
        # Both are proven alive since the restart, so even one that judges at once finds nobody dead.
        assert await rescuer("reap", grace=3.0) == []
        assert await rescuer("free") == []
        await holder("append", session=session("t"), dispatch=dispatch)

    await front("stop")
    admitted = await admitting
    assert await holder("append", session=session("t"), dispatch=dispatch) < 5.0
    stored = await fetch(server.dsn, "select id from dispatches where id <> %s order by position", dispatch)
    assert [row[0] for row in stored] == admitted
    store = PostgresStore(server.dsn)
    await store.open()
    assert [line.token for line in await store.journal.load(session("t"))] == [1] * 4
    assert await store.fleet.reap(timedelta(seconds=3)) == []
    await store.close()


async def _more(process: Process, failures: int) -> bool:
    return await process("beats_failed") > failures


async def _beats(process: Process) -> bool:
    with contextlib.suppress(RemoteError):
        return bool(await process("beat"))
    return False
