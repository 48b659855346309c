"""What a statement reads does not grow with the tables, also under a plan that was made while they were empty."""

from __future__ import annotations

import psycopg

from pyflue.clock import SystemClock
from pyflue.dispatches import Admission, DedupeKey, DispatchInput, QueueLimits, SessionAddress
from pyflue.ids import Ids
from pyflue.stores.postgres import PostgresStore
from tests.services import fresh_database

LIMITS = QueueLimits(1_000, 1_000_000)
ROUNDS = 300
READ = "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0) from pg_stat_user_tables where relname = any(%s)"


async def test_an_admission_looks_up_its_keys_and_sessions_and_reads_nothing_else(postgres_server: str) -> None:
    ids = Ids(SystemClock())

    def admission(number: int) -> Admission:
        address = SessionAddress("triage", f"thread-{number}", "default")
        return Admission(ids.dispatch(), address, DispatchInput(text="hello"), keys=(DedupeKey("web", str(number)),))

    with fresh_database(postgres_server) as dsn:
        store = PostgresStore(dsn, pool=1)
        await store.migrate()
        await store.open()
        for number in range(ROUNDS):
            await store.ledger.admit([admission(number)], LIMITS)
        await store.close()  # the server publishes a connection's counts when it ends
        with psycopg.connect(dsn, autocommit=True) as connection:
            row = connection.execute(READ, (["admissions", "sessions"],)).fetchone()

    assert row is not None
    assert row[0] < 10 * ROUNDS  # reading everything each time would be ROUNDS² / 2
