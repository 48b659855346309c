"""The SQLite store keeps every promise of the contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyflue.stores.protocol import Store
from pyflue.stores.sqlite import SQLiteStore
from pyflue.testing.clock import FakeClock
from pyflue.testing.contracts.ledger import LedgerContract
from pyflue.testing.contracts.stage import OtherStore


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
