"""The worker processes, and judging which are dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, LiteralString, cast

import psycopg
from psycopg import AsyncConnection

from pyflue.clock import Clock
from pyflue.dispatches import Lease, WorkerRow
from pyflue.ids import OutboxId, SessionId, WorkerId
from pyflue.stores.postgres.arrays import Texts
from pyflue.stores.postgres.pool import Pool, Row
from pyflue.stores.postgres.rows import lease_of
from pyflue.stores.protocol import Heartbeat
from pyflue.stores.queries import Queries

_LOCK_TIMEOUT: Final = 2.0  # seconds; a heartbeat must not wait for long on what is only a short cut


class LivenessLock:
    """A worker's advisory lock, on a connection of its own. The lock is free the moment that connection ends.

    A lost connection is opened again at the next heartbeat. Until then the worker lives by its heartbeat alone.
    Behind a pooler that shares server connections the lock means nothing: give this store a direct DSN.
    """

    def __init__(self, conninfo: str, queries: Queries) -> None:
        self._conninfo = conninfo
        self._queries = queries
        self._connection: AsyncConnection[Row] | None = None
        self._held: int | None = None

    async def hold(self, key: int) -> bool:
        """Take the lock, or make sure it is still held; True if so. A failure is not an error: it is tried again."""
        if self._connection is not None and await self._hold(key):
            return True
        # Lost, or never opened. A lock the server still gives to a connection it has not missed yet comes back later.
        return await self._hold(key)

    async def _hold(self, key: int) -> bool:
        try:
            async with asyncio.timeout(_LOCK_TIMEOUT):
                if self._connection is None:
                    self._connection = await self._connect()
                # Once held, any answer proves the connection, and with it the lock.
                name = "store_ready" if self._held == key else "fleet_register.lock"
                cursor = await self._connection.execute(cast(LiteralString, self._queries[name]), {"key": key})
                row = await cursor.fetchone()
                self._held = key if row is not None and row[0] else None
        except (psycopg.Error, OSError, TimeoutError):
            await self.drop()
        return self._held == key

    async def drop(self) -> None:
        """Let the lock go by ending its connection."""
        connection, self._connection, self._held = self._connection, None, None
        if connection is not None:
            await connection.close()

    async def _connect(self) -> AsyncConnection[Row]:
        connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
        await connection.execute(cast(LiteralString, self._queries["fleet_register.keepalive"]))
        return connection


class PostgresFleet:
    def __init__(self, pool: Pool, queries: Queries, clock: Clock | None) -> None:
        self._pool = pool
        self._queries = queries
        self._clock = clock
        self._locks: dict[WorkerId, LivenessLock] = {}

    def _now(self) -> datetime | None:
        return self._clock.now() if self._clock else None

    async def register(self, worker: WorkerRow, lease_time: timedelta) -> None:
        await self._lock_of(worker.id).hold(worker.liveness_key)
        await self._pool.write(
            "fleet_register",
            {
                "worker": worker.id,
                "host": worker.host,
                "pid": worker.pid,
                "agents": Texts(worker.agents),
                "key": worker.liveness_key,
                "lease": lease_time,
                "now": self._now(),
            },
        )

    async def heartbeat(self, worker_id: WorkerId, lease_time: timedelta) -> Heartbeat:
        rows = await self._pool.write("fleet_heartbeat", {"worker": worker_id, "lease": lease_time, "now": self._now()})
        if not rows:
            return Heartbeat(alive=False)
        liveness_key, aborts = rows[0]
        await self._lock_of(worker_id).hold(liveness_key)
        return Heartbeat(alive=True, aborts=tuple(aborts))

    async def drain(self, worker_id: WorkerId) -> None:
        await self._pool.write("fleet_drain", {"worker": worker_id})

    async def retire(self, worker_id: WorkerId) -> None:
        await self._pool.write("fleet_retire", {"worker": worker_id, "now": self._now()})
        if lock := self._locks.pop(worker_id, None):
            await lock.drop()

    async def reap(self, grace: timedelta) -> list[WorkerId]:
        rows = await self._pool.write("fleet_reap", {"grace": grace, "now": self._now()})
        return [row[0] for row in rows]

    async def free(self, limit: int) -> list[SessionId]:
        rows = await self._pool.write("fleet_free", {"limit": limit, "now": self._now()})
        return [row[0] for row in rows]

    async def disown(
        self, worker_id: WorkerId, sessions: Sequence[SessionId], items: Sequence[OutboxId]
    ) -> list[SessionId]:
        rows = await self._pool.write(
            "fleet_disown",
            {"worker": worker_id, "sessions": Texts(sessions), "items": Texts(items), "now": self._now()},
        )
        return [row[0] for row in rows]

    async def unclaimable(self, after: timedelta, limit: int, worker_id: WorkerId) -> list[Lease]:
        rows = await self._pool.write(
            "fleet_unclaimable", {"after": after, "limit": limit, "worker": worker_id, "now": self._now()}
        )
        return [lease_of(row, worker_id) for row in rows]

    async def close(self) -> None:
        """Let every liveness lock of this store go."""
        while self._locks:
            _, lock = self._locks.popitem()
            await lock.drop()

    def _lock_of(self, worker_id: WorkerId) -> LivenessLock:
        lock = self._locks.get(worker_id)
        if lock is None:
            lock = self._locks[worker_id] = LivenessLock(self._pool.conninfo, self._queries)
        return lock
