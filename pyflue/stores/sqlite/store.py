"""The embedded store, put together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from pyflue.clock import Clock, SystemClock
from pyflue.errors import StoreUnavailableError
from pyflue.stores.sqlite.database import Database
from pyflue.stores.sqlite.fleet import SQLiteFleet
from pyflue.stores.sqlite.journal import SQLiteEvents, SQLiteJournal, SQLiteSteps
from pyflue.stores.sqlite.ledger import SQLiteLedger
from pyflue.stores.sqlite.liveness import LivenessFiles
from pyflue.stores.sqlite.outbox import SQLiteOutbox
from pyflue.stores.sqlite.rows import micros
from pyflue.stores.sqlite.schema import migrate
from pyflue.stores.sqlite.views import SQLiteViews

_READY_SECONDS: Final = 1.0


class SQLiteStore:
    """A ``Store`` in one file, for the processes of one host.

    Beside the file stand SQLite's own ``-wal`` and ``-shm``, a ``.lock`` held while migrating, and a folder
    ``.workers`` with a locked file for each worker. Every write is on the disk before it is answered. ``clock`` is the
    store's own time (the processes share the host's).
    """

    def __init__(self, path: str | Path, *, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._clock = clock or SystemClock()
        self._database = Database(self._path, self._clock)
        self._liveness = LivenessFiles(self._path.with_name(self._path.name + ".workers"))
        self._is_open = False
        self.ledger = SQLiteLedger(self._database)
        self.journal = SQLiteJournal(self._database)
        self.outbox = SQLiteOutbox(self._database)
        self.steps = SQLiteSteps(self._database)
        self.events = SQLiteEvents(self._database)
        self.fleet = SQLiteFleet(self._database, self._liveness)
        self.views = SQLiteViews(self._database)

    async def open(self) -> None:
        """Check the schema and start the threads; opening twice is once. Raises as ``Store.open``."""
        if not self._is_open:
            await asyncio.to_thread(self._database.start)
            self._is_open = True

    async def close(self) -> None:
        """Finish what is under way; the liveness locks go, so workers that did not retire are soon judged dead."""
        if self._is_open:
            self._is_open = False
            await asyncio.to_thread(self._database.stop)
            self._liveness.close()

    async def migrate(self) -> list[str]:
        """Create the file (mode 0600) and apply missing migrations; return their names."""
        return await asyncio.to_thread(migrate, self._path, micros(self._clock.now()))

    async def ready(self) -> None:
        """Return when the file can be read; raise ``StoreUnavailableError`` when it cannot within a second."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._database.read(lambda work: work.one("store_ready"))
        except TimeoutError:
            raise StoreUnavailableError("no answer within a second") from None
