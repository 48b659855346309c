"""The reference store: everything in this process's memory, gone when the process ends.

It is what the contract tests of ``pyflue.testing.contracts`` were written against. No method awaits anything, so
each one is atomic on the event loop and needs no lock. One object serves one event loop.
"""

from __future__ import annotations

from pyflue.clock import Clock, SystemClock
from pyflue.stores.memory.fleet import MemoryFleet
from pyflue.stores.memory.journal import MemoryEvents, MemoryJournal, MemorySteps
from pyflue.stores.memory.ledger import MemoryLedger
from pyflue.stores.memory.outbox import MemoryOutbox
from pyflue.stores.memory.tables import Tables
from pyflue.stores.memory.views import MemoryViews


class MemoryStore:
    """A ``Store`` for tests and for trying things out (``memory:``). ``clock`` is the store's own time."""

    def __init__(self, clock: Clock | None = None) -> None:
        tables = Tables(clock or SystemClock())
        self.ledger = MemoryLedger(tables)
        self.journal = MemoryJournal(tables)
        self.outbox = MemoryOutbox(tables)
        self.steps = MemorySteps(tables)
        self.events = MemoryEvents(tables)
        self.fleet = MemoryFleet(tables)
        self.views = MemoryViews(tables)

    async def open(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing; what was stored stays until the object goes."""

    async def migrate(self) -> list[str]:
        """Return no names: there is no schema."""
        return []

    async def ready(self) -> None:
        """Return at once."""


__all__ = ["MemoryStore"]
