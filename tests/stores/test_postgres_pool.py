"""What callers see of a Postgres server that is down, restarts, or cuts a connection at a bad moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql

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
from pyflue.errors import (
    CommitUnknownError,
    ConfigurationError,
    InvalidInputError,
    PyFlueError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
)
from pyflue.ids import Ids
from pyflue.stores.postgres import PostgresStore
from pyflue.stores.postgres import pool as pool_module
from pyflue.stores.protocol import DispatchQuery
from tests.services import OwnPostgres, fresh_database

AGENTS = frozenset({"echo"})
IDS = Ids()


@pytest.fixture
def dsn(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server) as dsn:
        asyncio.run(PostgresStore(dsn).migrate())
        yield dsn


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(dsn, pool=2)
    await store.open()
    yield store
    await store.close()


def admission(thread: str = "t", key: str = "k") -> Admission:
    address = SessionAddress("echo", thread)
    return Admission(IDS.dispatch(), address, DispatchInput("hello"), (DedupeKey("test", key),))


async def lease_of(store: PostgresStore, thread: str = "t") -> Lease:
    now = datetime.now(UTC)
    worker = IDS.worker()
    row = WorkerRow(worker, "here", 1, "live", ("echo",), now, now, now, IDS.liveness_key())
    await store.fleet.register(row, timedelta(minutes=1))
    await store.ledger.admit([admission(thread, f"key of {thread}")], QueueLimits())
    lease = await store.ledger.claim(SessionAddress("echo", thread).id, worker, AGENTS)
    assert lease is not None
    return lease


@contextlib.asynccontextmanager
async def blocked_sessions(dsn: str) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
    """Hold every session row in a transaction of one's own; yields that connection."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("select id from sessions for update")
        yield connection


async def to_the_blocked(dsn: str, act: str) -> None:
    """Wait until somebody waits for a lock in this database, and apply a function of the server to its process id."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection, asyncio.timeout(10):
        query = sql.SQL(
            "select {}(pid) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ).format(sql.Identifier(act))
        while not await (await connection.execute(query)).fetchall():  # noqa: ASYNC110 - it happens in the server
            await asyncio.sleep(0.01)


async def test_a_connection_cut_during_a_write_leaves_its_outcome_unknown(store: PostgresStore, dsn: str) -> None:
    lease = await lease_of(store)
    async with blocked_sessions(dsn):
        writing = asyncio.create_task(store.ledger.release(lease, 1))
        await to_the_blocked(dsn, "pg_terminate_backend")

        with pytest.raises(CommitUnknownError):
            await writing
    assert await store.ledger.release(lease, 1) is True


async def test_a_connection_cut_during_a_read_goes_unnoticed(store: PostgresStore, dsn: str) -> None:
    lease = await lease_of(store)
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("lock table sessions in access exclusive mode")
        reading = asyncio.create_task(store.ledger.mailbox(lease))
        await to_the_blocked(dsn, "pg_terminate_backend")

    assert (await reading).seen == 1


async def test_a_statement_its_operator_cancels_has_changed_nothing(store: PostgresStore, dsn: str) -> None:
    lease = await lease_of(store)
    async with blocked_sessions(dsn) as connection:
        writing = asyncio.create_task(store.ledger.release(lease, 1))
        await to_the_blocked(dsn, "pg_cancel_backend")

        with pytest.raises(StoreUnavailableError) as caught:
            await writing
        await connection.rollback()
    assert not isinstance(caught.value, CommitUnknownError)


async def test_a_deadlock_is_tried_again_and_seen_by_nobody(store: PostgresStore, dsn: str) -> None:
    lease = await lease_of(store)
    dispatch = (await store.ledger.mailbox(lease)).head
    assert dispatch is not None

    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        # Held the wrong way round: first the dispatch, then its session.
        await connection.execute("set deadlock_timeout = '10s'")
        await connection.execute("select id from dispatches for update")
        aborting = asyncio.create_task(store.ledger.request_abort(dispatch.id))
        await to_the_blocked(dsn, "pg_blocking_pids")
        await connection.execute("select id from sessions for update")
        await connection.rollback()
        aborted = await aborting

    assert aborted is not None
    assert aborted.abort_requested_at is not None


async def test_an_id_that_cannot_be_stored_is_refused_and_harms_only_itself(store: PostgresStore) -> None:
    good, poison = admission("good", "a"), admission("po\0ison", "b")

    with pytest.raises(InvalidInputError):
        await store.ledger.admit([good, poison], QueueLimits())
    assert await store.views.dispatches(DispatchQuery()) == []
    [receipt] = await store.ledger.admit([good], QueueLimits())

    assert isinstance(receipt, Receipt)
    assert not receipt.duplicate
    with pytest.raises(InvalidInputError):
        await store.ledger.admit([poison], QueueLimits())


async def test_a_store_that_is_not_migrated_does_not_open(fresh_postgres_dsn: str) -> None:
    store = PostgresStore(fresh_postgres_dsn)

    with pytest.raises(SchemaError, match="pyflue migrate"):
        await store.open()
    assert await store.migrate() != []
    assert await store.migrate() == []
    await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("update schema_migrations set checksum = 'x'", "was changed after it was applied"),
        ("insert into schema_migrations values (9999, '9999_later', 'x')", "newer release"),
    ],
)
async def test_a_schema_of_another_release_is_refused(dsn: str, change: str, reason: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(cast(Any, change))

    with pytest.raises(SchemaError, match=reason):
        await PostgresStore(dsn).open()
    with pytest.raises(SchemaError, match=reason):
        await PostgresStore(dsn).migrate()


WITHOUT_RIGHTS = "?options=-c%20role%3Dpg_monitor"  # a role every server has, which owns nothing here


async def test_a_user_without_rights_is_told_which_to_grant(fresh_postgres_dsn: str, dsn: str) -> None:
    with pytest.raises(StoreError, match="Grant it usage and create on the schema"):
        await PostgresStore(fresh_postgres_dsn + WITHOUT_RIGHTS).migrate()

    with pytest.raises(StoreError, match="permission denied for table"):
        await PostgresStore(dsn + WITHOUT_RIGHTS).open()


async def test_errors_never_repeat_the_dsn() -> None:
    store = PostgresStore("postgresql://someone:hunter2@127.0.0.1:1/nowhere")
    raised: list[PyFlueError] = []
    for act in (store.open, store.migrate, store.ready):
        with pytest.raises(StoreUnavailableError) as caught:
            await act()
        raised.append(caught.value)
    with pytest.raises(ConfigurationError) as unreadable:
        PostgresStore("postgresql://someone:hunter2@[nowhere")
    raised.append(unreadable.value)

    for error in raised:
        shown = f"{error} {error.detail} {error!r} {error.__cause__!r}"
        assert "hunter2" not in shown
        assert "someone" not in shown


async def test_a_restarted_server_is_used_again_and_no_broken_connection_reaches_a_caller() -> None:
    with OwnPostgres() as server:
        store = PostgresStore(server.dsn, pool=4)
        await store.migrate()
        await store.open()
        leases = await asyncio.gather(*(lease_of(store, f"t{number}") for number in range(8)))

        for _ in range(2):
            await asyncio.to_thread(server.kill)
            with pytest.raises(StoreUnavailableError) as caught:
                await store.ledger.admit([admission(key="while it is down")], QueueLimits())
            assert not isinstance(caught.value, CommitUnknownError), "nothing was sent"
            await asyncio.to_thread(server.start)
            await _until_ready(store)

            assert await asyncio.gather(*(store.ledger.release(lease, 99) for lease in leases)) == [False] * 8
        await store.close()


async def test_a_server_that_falls_silent_is_not_ready_within_a_second_or_so(dsn: str) -> None:
    async with silenceable(dsn) as (through, silent):
        store = PostgresStore(through, pool=2)
        await store.open()
        await store.ready()

        silent.set()
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await store.ready()
        took = time.monotonic() - began
        silent.clear()
        await _until_ready(store)
        await store.close()

    assert took < 4


async def test_a_write_to_a_server_that_falls_silent_is_given_up_when_its_time_is_over(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with silenceable(dsn) as (through, silent):
        store = PostgresStore(through, pool=2)
        await store.open()
        await store.ledger.admit([admission(key="before")], QueueLimits())
        monkeypatch.setattr(pool_module, "STATEMENT_TIMEOUT", 0.3)

        silent.set()
        began = time.monotonic()
        with pytest.raises(CommitUnknownError):
            await store.ledger.admit([admission(key="into the silence")], QueueLimits())
        took = time.monotonic() - began
        silent.clear()
        monkeypatch.undo()
        await _until_ready(store)

        [receipt] = await store.ledger.admit([admission(key="after")], QueueLimits())
        assert isinstance(receipt, Receipt)
        await store.close()

    assert 0.3 <= took < 3


@contextlib.asynccontextmanager
async def silenceable(dsn: str) -> AsyncGenerator[tuple[str, asyncio.Event]]:
    """Yield a DSN that leads through a proxy, and an event: while it is set, what the server says is thrown away."""
    silent = asyncio.Event()
    target = psycopg.conninfo.conninfo_to_dict(dsn)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, heard: bool) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if heard or not silent.is_set():
                    writer.write(data)
                    await writer.drain()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(str(target["host"]), int(str(target.get("port") or 5432)))
        await asyncio.gather(pump(reader, back, heard=True), pump(there, writer, heard=False))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=port), silent
    finally:
        server.close()


async def _until_ready(store: PostgresStore) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                return await store.ready()


async def test_a_database_that_is_not_there_is_told_in_the_servers_words_without_the_password(dsn: str) -> None:
    wrong = psycopg.conninfo.make_conninfo(dsn, dbname="no_such_database", password="hidden-password")

    with pytest.raises(StoreUnavailableError) as refused:
        await PostgresStore(wrong).open()

    assert 'database "no_such_database" does not exist' in refused.value.detail
    assert "hidden-password" not in refused.value.detail
    assert "no_such_database" not in str(refused.value)  # what a caller on the network may be told


async def test_an_opening_that_is_cancelled_leaves_nothing_running(dsn: str) -> None:
    """What it left would keep the event loop from ending: a command hung on Ctrl-C."""
    before = asyncio.all_tasks()
    store = PostgresStore(dsn, pool=2)
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0)

    opening.cancel()

    with pytest.raises(asyncio.CancelledError):
        await opening
    assert asyncio.all_tasks() - before == set()
