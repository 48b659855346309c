"""The memory store keeps every promise of the contracts; it is their reference implementation."""

from __future__ import annotations

import pytest

from pyflue.ids import WorkerId
from pyflue.stores.memory import MemoryStore
from pyflue.stores.protocol import SessionStore, Store
from pyflue.stores.sessions import InMemorySessionStore
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
def store(clock: FakeClock) -> Store:
    return MemoryStore(clock)


@pytest.fixture
def other_store(store: Store) -> OtherStore:
    async def same() -> Store:
        return store

    return same


@pytest.fixture
def sessions() -> SessionStore:
    return InMemorySessionStore()


class TestMemoryLedger(LedgerContract):
    pass


class TestMemoryJournal(JournalContract):
    pass


class TestMemoryEvents(EventsContract):
    pass


class TestMemorySteps(StepsContract):
    pass


class TestMemoryOutbox(OutboxContract):
    pass


class TestMemoryFleet(FleetContract):
    async def drop_liveness(self, store: Store, worker_id: WorkerId) -> None:
        assert isinstance(store, MemoryStore)
        store.fleet.drop_liveness(worker_id)


class TestMemoryViews(ViewsContract):
    pass


class TestMemoryLifecycle(LifecycleContract):
    pass


class TestInMemorySessions(SessionStoreContract):
    pass
