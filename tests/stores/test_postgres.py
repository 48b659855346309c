"""The Postgres store keeps every promise of the contracts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from pyflue.ids import WorkerId
from pyflue.stores.postgres import PostgresStore
from pyflue.stores.protocol import Store
from pyflue.testing.clock import FakeClock
from pyflue.testing.contracts.events import EventsContract
from pyflue.testing.contracts.fleet import FleetContract
from pyflue.testing.contracts.journal import JournalContract
from pyflue.testing.contracts.ledger import LedgerContract
from pyflue.testing.contracts.outbox import OutboxContract
from pyflue.testing.contracts.stage import OtherStore
from pyflue.testing.contracts.steps import StepsContract
from pyflue.testing.contracts.views import LifecycleContract, ViewsContract
from tests.services import fresh_database

TABLES = "sessions, entries, admissions, dispatches, runs, events, outbox, steps, workers, schedules"


@pytest.fixture(scope="module")
def dsn(postgres_server: str) -> Iterator[str]:
    """A migrated database of this module alone."""
    with fresh_database(postgres_server) as dsn:
        asyncio.run(PostgresStore(dsn).migrate())
        yield dsn


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(dsn: str, clock: FakeClock) -> AsyncIterator[PostgresStore]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"truncate {TABLES}")
    store = PostgresStore(dsn, pool=2, clock=clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other_store(store: PostgresStore, dsn: str, clock: FakeClock) -> AsyncIterator[OtherStore]:
    opened: list[PostgresStore] = []

    async def another() -> Store:
        other = PostgresStore(dsn, pool=2, clock=clock)
        await other.open()
        opened.append(other)
        return other

    yield another
    for other in opened:
        await other.close()


class TestPostgresLedger(LedgerContract):
    pass


class TestPostgresJournal(JournalContract):
    pass


class TestPostgresEvents(EventsContract):
    pass


class TestPostgresSteps(StepsContract):
    pass


class TestPostgresOutbox(OutboxContract):
    pass


class TestPostgresFleet(FleetContract):
    @pytest.fixture(autouse=True)
    def database(self, dsn: str) -> None:
        self.dsn = dsn

    async def drop_liveness(self, store: Store, worker_id: WorkerId) -> None:
        """End the connection that holds the worker's lock, as its network might, and wait until the lock is free."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            while True:
                cursor = await connection.execute(
                    "select pg_terminate_backend(l.pid)"
                    " from pg_locks l join workers w on ((l.classid::bigint << 32) | l.objid::bigint) = w.liveness_key"
                    " where l.locktype = 'advisory' and w.id = %s",
                    [worker_id],
                )
                if not await cursor.fetchall():
                    return


class TestPostgresViews(ViewsContract):
    pass


class TestPostgresLifecycle(LifecycleContract):
    pass
