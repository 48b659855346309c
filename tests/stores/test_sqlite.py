"""The SQLite store keeps every promise of the contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyflue.ids import WorkerId
from pyflue.stores.protocol import Store
from pyflue.stores.sqlite import SQLiteSessionStore, SQLiteStore
from pyflue.testing.clock import FakeClock
from pyflue.testing.contracts.events import EventsContract
from pyflue.testing.contracts.fleet import FleetContract
from pyflue.testing.contracts.journal import JournalContract
from pyflue.testing.contracts.ledger import LedgerContract
from pyflue.testing.contracts.outbox import OutboxContract
from pyflue.testing.contracts.sessions import SessionStoreContract
from pyflue.testing.contracts.stage import OtherStore
from pyflue.testing.contracts.steps import StepsContract
from pyflue.testing.contracts.views import LifecycleContract, ViewsContract


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "pyflue.sqlite3", clock=clock)
    await store.migrate()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other_store(store: SQLiteStore, tmp_path: Path, clock: FakeClock) -> AsyncIterator[OtherStore]:
    opened: list[SQLiteStore] = []

    async def another() -> Store:
        other = SQLiteStore(tmp_path / "pyflue.sqlite3", clock=clock)
        await other.open()
        opened.append(other)
        return other

    yield another
    for other in opened:
        await other.close()


class TestSQLiteLedger(LedgerContract):
    pass


class TestSQLiteJournal(JournalContract):
    pass


class TestSQLiteEvents(EventsContract):
    pass


class TestSQLiteSteps(StepsContract):
    pass


class TestSQLiteOutbox(OutboxContract):
    pass


class TestSQLiteFleet(FleetContract):
    async def drop_liveness(self, store: Store, worker_id: WorkerId) -> None:
        assert isinstance(store, SQLiteStore)
        store.fleet.liveness.remove(worker_id)


class TestSQLiteViews(ViewsContract):
    pass


class TestSQLiteLifecycle(LifecycleContract):
    pass


class TestSQLiteSessions(SessionStoreContract):
    @pytest.fixture
    async def sessions(self, tmp_path: Path) -> AsyncIterator[SQLiteSessionStore]:
        sessions = SQLiteSessionStore(tmp_path / "history" / "sessions.sqlite3")
        yield sessions
        await sessions.close()
