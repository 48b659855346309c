"""What the SQLite store promises beyond the contracts: about its file, its threads, and other processes."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from pyflue.clock import SystemClock
from pyflue.dispatches import (
    Admission,
    DedupeKey,
    DispatchInput,
    Lease,
    QueueLimits,
    Receipt,
    SessionAddress,
    WorkerRow,
)
from pyflue.errors import LeaseLost, SchemaError, StoreError, StoreUnavailableError
from pyflue.ids import DispatchId, Ids, WorkerId
from pyflue.stores.protocol import DispatchQuery, HeadMoved, TurnWrite
from pyflue.stores.queries import Query
from pyflue.stores.sqlite import SQLiteSessionStore, SQLiteStore
from pyflue.stores.sqlite.statements import QUERIES

PROCESS = Path(__file__).with_name("sqlite_process.py")
IDS = Ids()
LIMITS = QueueLimits()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pyflue.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.migrate()
    await store.open()
    yield store
    await store.close()


def admission(key: str, thread: str = "one") -> Admission:
    return Admission(IDS.dispatch(), SessionAddress("echo", thread), DispatchInput("hello"), (DedupeKey("test", key),))


async def admit(store: SQLiteStore, key: str, thread: str = "one") -> Receipt:
    [receipt] = await store.ledger.admit([admission(key, thread)], LIMITS)
    assert isinstance(receipt, Receipt)
    return receipt


@contextmanager
def process(*arguments: str) -> Generator[subprocess.Popen[str]]:
    """Start sqlite_process.py; it is killed with SIGKILL at the end if it still runs."""
    command = [sys.executable, str(PROCESS), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


class TestFile:
    async def test_the_file_and_what_stands_beside_it_are_private_to_their_owner(
        self, store: SQLiteStore, path: Path
    ) -> None:
        await admit(store, "key")

        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir() if file.is_file()}

        assert set(modes.values()) == {0o600}
        assert "pyflue.sqlite3-wal" in modes

    def test_opening_without_a_database_says_to_migrate_and_makes_nothing(self, path: Path) -> None:
        with pytest.raises(SchemaError, match="pyflue migrate"):
            asyncio.run(SQLiteStore(path).open())

        assert not path.parent.exists()

    def test_opening_an_empty_database_says_to_migrate(self, path: Path) -> None:
        path.parent.mkdir()
        path.touch()

        with pytest.raises(SchemaError, match="0001_"):
            asyncio.run(SQLiteStore(path).open())

    async def test_a_schema_of_a_newer_release_is_refused(self, store: SQLiteStore, path: Path) -> None:
        await store.close()
        with sqlite3.connect(path) as connection:
            connection.execute("insert into schema_migrations values (9999, '9999_later', 'x', 0)")
        connection.close()

        with pytest.raises(SchemaError, match="9999_later"):
            await store.open()
        with pytest.raises(SchemaError, match="9999_later"):
            await store.migrate()

    async def test_a_migration_changed_after_it_was_applied_is_refused(self, store: SQLiteStore, path: Path) -> None:
        await store.close()
        with sqlite3.connect(path) as connection:
            connection.execute("update schema_migrations set checksum = 'x'")
        connection.close()

        with pytest.raises(SchemaError, match="changed"):
            await store.open()

    async def test_of_many_migrators_at_once_one_applies_and_the_others_find_it_done(self, path: Path) -> None:
        names = await asyncio.gather(*(SQLiteStore(path).migrate() for _ in range(6)))

        assert sorted(len(applied) for applied in names)[:5] == [0] * 5
        assert max(names) == ["0001_tables"]

    @pytest.mark.parametrize("call", [SQLiteStore.open, SQLiteStore.migrate])
    def test_a_file_that_is_no_database_is_said_to_be_none(
        self, path: Path, call: Callable[[SQLiteStore], Coroutine[object, object, object]]
    ) -> None:
        path.parent.mkdir()
        path.write_bytes(b"these are the words of somebody else, and many of them\n" * 100)

        with pytest.raises(StoreError, match="no SQLite database") as caught:
            asyncio.run(call(SQLiteStore(path)))

        assert not isinstance(caught.value, StoreUnavailableError), "waiting does not help"

    @pytest.mark.parametrize("call", [SQLiteStore.open, SQLiteStore.migrate])
    def test_a_file_in_a_place_that_is_no_folder_is_said_to_be_there(
        self, tmp_path: Path, call: Callable[[SQLiteStore], Coroutine[object, object, object]]
    ) -> None:
        (tmp_path / "notes").touch()

        with pytest.raises(StoreError, match=r"storage\.url") as caught:
            asyncio.run(call(SQLiteStore(tmp_path / "notes" / "pyflue.sqlite3")))

        assert str(tmp_path / "notes") in caught.value.cause

    async def test_what_was_written_is_there_after_closing_and_opening_again(self, store: SQLiteStore) -> None:
        receipt = await admit(store, "key")

        await store.close()
        await store.open()

        assert await store.views.dispatch(receipt.dispatch_id) is not None


class TestLifetime:
    async def test_a_closed_store_is_unavailable_for_reads_writes_and_readiness(self, store: SQLiteStore) -> None:
        await store.ready()
        await store.close()
        await store.close()

        with pytest.raises(StoreUnavailableError):
            await admit(store, "key")
        with pytest.raises(StoreUnavailableError):
            await store.views.totals()
        with pytest.raises(StoreUnavailableError):
            await store.ready()

    async def test_closing_finishes_what_is_queued(self, store: SQLiteStore) -> None:
        admissions = [asyncio.create_task(admit(store, str(number))) for number in range(300)]
        await asyncio.sleep(0)

        await store.close()

        receipts = await asyncio.gather(*admissions)
        await store.open()
        stored = await store.views.dispatches(DispatchQuery(limit=1_000))
        assert {dispatch.id for dispatch in stored} == {receipt.dispatch_id for receipt in receipts}

    async def test_a_store_serves_one_event_loop_after_another(self, path: Path) -> None:
        store = SQLiteStore(path)
        await store.migrate()
        await store.open()

        receipt = await asyncio.to_thread(lambda: asyncio.run(admit(store, "key")))

        assert (await admit(store, "key")).dispatch_id == receipt.dispatch_id
        await store.close()


class TestGroupCommit:
    async def test_a_refused_write_takes_nothing_of_its_neighbours_with_it(
        self, store: SQLiteStore, path: Path
    ) -> None:
        first = await admit(store, "first")
        session = SessionAddress("echo", "one").id
        stale = replace(await leased(store), token=0)
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("begin immediate")  # until it ends, what follows gathers in the queue

        answers = asyncio.gather(
            admit(store, "before", "two"),
            store.journal.append(stale, TurnWrite(first.dispatch_id, 0)),
            store.ledger.admit([admission("a", "three"), broken(first.dispatch_id)], LIMITS),
            admit(store, "after", "four"),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
        blocker.execute("rollback")
        blocker.close()
        before, fenced, refused, after = await answers

        assert isinstance(fenced, LeaseLost)
        assert isinstance(refused, StoreError)
        assert not isinstance(refused, StoreUnavailableError)
        stored = {dispatch.id for dispatch in await store.views.dispatches(DispatchQuery())}
        assert isinstance(before, Receipt)
        assert isinstance(after, Receipt)
        assert stored == {first.dispatch_id, before.dispatch_id, after.dispatch_id}
        assert await store.views.session(SessionAddress("echo", "three").id) is None
        assert (await store.journal.head(session))[0] == 0

    async def test_a_cancelled_caller_harms_nobody_else(self, store: SQLiteStore) -> None:
        cancelled = asyncio.create_task(admit(store, "cancelled"))
        others = [asyncio.create_task(admit(store, f"other-{number}")) for number in range(20)]
        await asyncio.sleep(0)

        cancelled.cancel()

        assert len(await asyncio.gather(*others)) == 20
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    async def test_a_file_locked_for_too_long_makes_the_store_unavailable_and_then_available_again(
        self, store: SQLiteStore, path: Path
    ) -> None:
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("begin immediate")

        with pytest.raises(StoreUnavailableError):
            await admit(store, "key")
        reading = await store.views.totals()
        blocker.execute("rollback")
        blocker.close()

        assert reading.dispatches == {}
        assert not (await admit(store, "key")).duplicate


def broken(taken: DispatchId) -> Admission:
    """An admission whose id is taken already, which no caller would make."""
    return replace(admission("broken", "three"), dispatch_id=taken)


async def leased(store: SQLiteStore) -> Lease:
    now = SystemClock().now()
    worker = WorkerRow(IDS.worker(), "host", 1, "live", ("echo",), now, now, now)
    await store.fleet.register(worker, timedelta(minutes=1))
    lease = await store.ledger.claim(SessionAddress("echo", "one").id, worker.id, frozenset({"echo"}))
    assert lease is not None
    return lease


class TestProcesses:
    async def test_every_receipt_given_before_a_kill_is_in_the_database(self, store: SQLiteStore, path: Path) -> None:
        printed: list[str] = []
        with process("admit", str(path), "killed") as child:
            while len(printed) < 300:
                printed.append(await asyncio.to_thread(line_of, child))
            child.kill()
            assert child.stdout is not None
            printed += [line.strip() for line in child.stdout if line.endswith("\n")]

        stored = {dispatch.id for dispatch in await store.views.dispatches(DispatchQuery(limit=1_000_000))}

        assert set(printed) <= stored
        connection = sqlite3.connect(path)
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        waiting, counted = connection.execute(
            "select (select sum(unsettled) from sessions), (select unsettled from backlog)"
        ).fetchone()
        connection.close()
        assert waiting == counted == len(stored)

    async def test_a_full_disk_refuses_admissions_and_loses_none_it_gave_a_receipt_for(
        self, store: SQLiteStore, path: Path
    ) -> None:
        with process("full", str(path)) as child:
            printed, _ = await asyncio.to_thread(child.communicate)

        stored = {dispatch.id for dispatch in await store.views.dispatches(DispatchQuery(limit=1_000_000))}

        assert child.returncode == 0
        assert len(stored) > 1
        assert set(printed.split()) == stored

    async def test_two_processes_admitting_the_same_keys_make_one_dispatch_of_each(
        self, store: SQLiteStore, path: Path
    ) -> None:
        with process("keys", str(path), "a") as one, process("keys", str(path), "b") as two:
            assert [line_of(one), line_of(two)] == ["ready", "ready"]
            for child in (one, two):
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            answers = [line_of(child).split() for _ in range(100) for child in (one, two)]

        dispatches = {(number, dispatch_id) for number, dispatch_id, _ in answers}
        assert len(dispatches) == 100
        assert Counter(kind for _, _, kind in answers) == {"new": 100, "duplicate": 100}
        assert (await store.views.totals()).dispatches == {"queued": 100}

    async def test_a_killed_worker_is_noticed_at_once_and_its_session_freed(
        self, store: SQLiteStore, path: Path
    ) -> None:
        with process("hold", str(path)) as child:
            worker = WorkerId(await asyncio.to_thread(line_of, child))
            judged_alive = await store.fleet.reap(timedelta())
            child.kill()
            child.wait()
            judged_dead = await store.fleet.reap(timedelta())

        assert judged_alive == []
        assert judged_dead == [worker]
        assert await store.fleet.free(10) == [SessionAddress("echo", "held").id]
        assert not (path.parent / "pyflue.sqlite3.workers" / worker).exists()

    async def test_a_removed_lock_file_is_taken_back_by_the_next_heartbeat(
        self, store: SQLiteStore, path: Path
    ) -> None:
        await admit(store, "key")
        worker = (await leased(store)).worker_id
        (path.parent / "pyflue.sqlite3.workers" / worker).unlink()

        heard = await store.fleet.heartbeat(worker, timedelta(minutes=1))

        assert heard.alive
        other = SQLiteStore(path)
        await other.open()
        assert await other.fleet.reap(timedelta()) == []
        await other.close()


class TestCosts:
    """What runs for every turn or every second must not grow with what the database holds."""

    OPERATORS_LOOK = ("views_", "store_ready")

    async def test_no_statement_of_the_runtime_walks_a_table_that_grows(self, store: SQLiteStore, path: Path) -> None:
        connection = sqlite3.connect(path)
        growing = re.compile(r"SCAN (sessions|dispatches|entries|events|outbox|admissions|steps|runs|s|d|o)\b")

        walks = [
            (query.name, step)
            for query in QUERIES
            if not query.name.startswith(self.OPERATORS_LOOK)
            for step in plan_of(connection, query)
            if growing.match(step)
        ]

        connection.close()
        assert walks == []

    async def test_scans_for_due_work_walk_only_what_is_due_and_sort_nothing(
        self, store: SQLiteStore, path: Path
    ) -> None:
        connection = sqlite3.connect(path)
        scans = {
            "ledger_claim_due": "sessions_due",
            "fleet_unclaimable": "sessions_due",
            "outbox_claim_due": "outbox_due",
        }

        plans = {query.name: plan_of(connection, query) for query in QUERIES if query.name in scans}

        connection.close()
        for name, index in scans.items():
            assert index in plans[name][0]
            assert not any("TEMP B-TREE" in step for step in plans[name])


def plan_of(connection: sqlite3.Connection, query: Query) -> list[str]:
    values = dict.fromkeys(re.findall(r":([a-z_]+)", query.sql))
    return [row[3] for row in connection.execute(f"explain query plan {query.sql}", values)]


class TestSessionStore:
    async def test_of_two_objects_appending_at_the_same_head_one_is_told_that_it_moved(self, tmp_path: Path) -> None:
        one, two = SQLiteSessionStore(tmp_path / "history.sqlite3"), SQLiteSessionStore(tmp_path / "history.sqlite3")

        answers = await asyncio.gather(
            *(store.append("s", 0, [b"1", b"2"]) for store in (one, two)), return_exceptions=True
        )

        assert [answer.head for answer in answers if isinstance(answer, HeadMoved)] == [2]
        assert [answer for answer in answers if isinstance(answer, int)] == [2]
        assert await one.load("s") == await two.load("s") == [(1, b"1"), (2, b"2")]
        await one.close()
        await two.close()

    async def test_it_may_live_in_the_ledgers_file(self, store: SQLiteStore, path: Path) -> None:
        sessions = SQLiteSessionStore(path)

        await sessions.append("s", 0, [b"1"])
        await admit(store, "key")

        assert await sessions.load("s") == [(1, b"1")]
        await sessions.close()
