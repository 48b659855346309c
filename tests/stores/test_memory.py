"""The memory store keeps every promise of the contracts; it is their reference implementation."""

from __future__ import annotations

import pytest

from pyflue.stores.memory import MemoryStore
from pyflue.stores.protocol import Store
from pyflue.testing.clock import FakeClock
from pyflue.testing.contracts.events import EventsContract
from pyflue.testing.contracts.journal import JournalContract
from pyflue.testing.contracts.ledger import LedgerContract
from pyflue.testing.contracts.outbox import OutboxContract
from pyflue.testing.contracts.stage import OtherStore
from pyflue.testing.contracts.steps import StepsContract


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def other_store(store: MemoryStore) -> OtherStore:
    async def same() -> Store:
        return store

    return same


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
