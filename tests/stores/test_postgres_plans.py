"""What a statement reads does not grow with the tables, also under a plan that was made while they were empty."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pyflue.clock import SystemClock
from pyflue.dispatches import Admission, DedupeKey, DispatchInput, QueueLimits, SessionAddress, WorkerRow
from pyflue.ids import Ids, WorkerId
from pyflue.stores.postgres import PostgresStore
from tests.services import fresh_database

LIMITS = QueueLimits(1_000, 1_000_000)
ROUNDS = 300
ROWS = 5_000
READ = "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0) from pg_stat_user_tables where relname = any(%s)"
IDLE_SESSIONS = """
insert into sessions (id, agent, instance_id, name, created_at, updated_at)
select 'ses_' || n, 'echo', n::text, 'default', now(), now() from generate_series(1, %s) n
"""
SENT_REPLIES = """
insert into outbox (id, session_id, position, dispatch_id, call_id, part, channel, destination, body,
                    idempotency_key, status, available_at, created_at)
select 'out_' || n, 'ses_' || n, 1, 'dsp_' || n, '', 0, 'chat', '{}', 'hello', 'key-' || n, 'sent', now(), now()
  from generate_series(1, %s) n
"""


@pytest.fixture
def dsn(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server) as dsn:
        yield dsn


async def opened(dsn: str) -> PostgresStore:
    store = PostgresStore(dsn, pool=1)
    await store.migrate()
    await store.open()
    return store


async def registered(store: PostgresStore) -> WorkerId:
    ids, now = Ids(), datetime.now(UTC)
    row = WorkerRow(ids.worker(), "here", os.getpid(), "live", ("echo",), now, now, now, ids.liveness_key())
    await store.fleet.register(row, timedelta(minutes=1))
    return row.id


def execute(dsn: str, *statements: tuple[str, int]) -> None:
    """Run each with its number, and have the planner know what is there then."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement, number in statements:
            connection.execute(statement, (number,))  # type: ignore[arg-type]  # test SQL
        connection.execute("analyze")


def rows_read(dsn: str, *tables: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(READ, (list(tables),)).fetchone()
    assert row is not None
    return int(row[0])


async def test_an_admission_looks_up_its_keys_and_sessions_and_reads_nothing_else(dsn: str) -> None:
    ids = Ids(SystemClock())

    def admission(number: int) -> Admission:
        address = SessionAddress("triage", f"thread-{number}", "default")
        return Admission(ids.dispatch(), address, DispatchInput(text="hello"), keys=(DedupeKey("web", str(number)),))

    store = await opened(dsn)
    for number in range(ROUNDS):
        await store.ledger.admit([admission(number)], LIMITS)
    await store.close()  # the server publishes a connection's counts when it ends

    assert rows_read(dsn, "admissions", "sessions") < 10 * ROUNDS  # reading everything each time would be ROUNDS² / 2


async def test_a_rescuer_reads_the_mailboxes_it_takes_and_no_others(dsn: str) -> None:
    store = await opened(dsn)
    execute(dsn, (IDLE_SESSIONS, ROWS))
    worker = await registered(store)
    execute(dsn, ("update sessions set due_at = now() where instance_id::bigint <= %s", 10))
    before = rows_read(dsn, "sessions")

    taken = [await store.ledger.claim_due(worker, frozenset({"echo"}), 1) for _ in range(10)]
    freed = await store.fleet.disown(worker, (), ())
    await store.close()

    assert [len(leases) for leases in taken] == [1] * 10
    assert len(freed) == 10
    assert rows_read(dsn, "sessions") - before < 500


async def test_a_rescuer_compares_no_unsent_reply_with_all_the_others(dsn: str) -> None:
    store = await opened(dsn)
    execute(dsn, (SENT_REPLIES, ROWS))
    worker = await registered(store)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("update outbox set status = 'pending' where substr(id, 5)::bigint <= %s", (ROUNDS,))
    before = rows_read(dsn, "outbox")

    items = await store.outbox.claim_due(worker, 10)
    await store.close()

    assert len(items) == 10
    assert rows_read(dsn, "outbox") - before < 5 * ROUNDS
