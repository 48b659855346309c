"""The store object: one pool of connections, and the ports over it."""

from __future__ import annotations

import asyncio
from typing import Final

from pyflue.clock import Clock
from pyflue.errors import StoreUnavailableError
from pyflue.stores.migrations import check_migrations, load_migrations
from pyflue.stores.postgres.fleet import PostgresFleet
from pyflue.stores.postgres.journal import PostgresEvents, PostgresJournal, PostgresSteps
from pyflue.stores.postgres.ledger import PostgresLedger
from pyflue.stores.postgres.outbox import PostgresOutbox
from pyflue.stores.postgres.pool import Pool, Row
from pyflue.stores.postgres.schema import applied_migrations, migrate
from pyflue.stores.postgres.views import PostgresViews
from pyflue.stores.queries import load_queries

_PACKAGE: Final = "pyflue.stores.postgres"
_READY_WITHIN: Final = 1.0  # seconds; a load balancer asks often and waits little


class PostgresStore:
    """A ``Store`` on PostgreSQL, shared by any number of processes on any number of hosts.

    ``dsn`` must reach the server itself, or a pooler that keeps one server connection a client (advisory locks).
    ``pool``: connections of this process, besides one a registered worker. ``clock``: for tests; without it the
    database's own clock is the only one. One object serves one event loop; make it after any fork.
    """

    def __init__(self, dsn: str, *, pool: int = 6, clock: Clock | None = None) -> None:
        self._queries = load_queries(_PACKAGE)
        self._pool = Pool(dsn, pool, self._queries)
        self._asked: set[asyncio.Task[list[Row]]] = set()
        self.ledger = PostgresLedger(self._pool, clock)
        self.journal = PostgresJournal(self._pool, clock)
        self.outbox = PostgresOutbox(self._pool, clock)
        self.steps = PostgresSteps(self._pool, clock)
        self.events = PostgresEvents(self._pool)
        self.fleet = PostgresFleet(self._pool, self._queries, clock)
        self.views = PostgresViews(self._pool, clock)

    async def open(self) -> None:
        """Connect and check the schema; raises as ``Store.open`` says."""
        await self._pool.open()
        try:
            check_migrations(load_migrations(_PACKAGE), await applied_migrations(self._pool))
        except BaseException:
            await self._pool.close()
            raise

    async def close(self) -> None:
        """Disconnect, letting the liveness locks of this process go; idempotent."""
        await self.fleet.close()
        await self._pool.close()

    async def migrate(self) -> list[str]:
        """Apply missing migrations under an advisory lock; return their names."""
        return await migrate(self._pool.conninfo, self._queries, load_migrations(_PACKAGE))

    async def ready(self) -> None:
        """Return when the server answers; raise ``StoreUnavailableError`` when it does not within a second."""
        asked = asyncio.create_task(self._pool.read("store_ready", {}), name="pyflue.store_ready")
        self._asked.add(asked)
        asked.add_done_callback(self._answered)
        try:
            done, _ = await asyncio.wait({asked}, timeout=_READY_WITHIN)
        finally:
            asked.cancel()  # and not waited for: psycopg spends ten seconds on a server that does not answer
        if not done:
            raise StoreUnavailableError("no answer within a second")
        await asked

    def _answered(self, asked: asyncio.Task[list[Row]]) -> None:
        self._asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # nobody may be left who reads it
