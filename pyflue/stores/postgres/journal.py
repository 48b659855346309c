"""Entries, steps and events."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec import Raw

from pyflue.clock import Clock
from pyflue.dispatches import Lease
from pyflue.errors import LeaseLost
from pyflue.events import StoredEvent
from pyflue.ids import SessionId
from pyflue.stores.postgres.ledger import why_refused
from pyflue.stores.postgres.pool import Pool
from pyflue.stores.postgres.rows import write_params
from pyflue.stores.protocol import StoredLine, TurnWrite

_ALL: Final = 2**62  # a limit that no journal reaches


class PostgresJournal:
    def __init__(self, pool: Pool, clock: Clock | None) -> None:
        self._pool = pool
        self._clock = clock

    async def append(self, lease: Lease, write: TurnWrite) -> int:
        params = write_params(lease, write)
        params["progress"] = write.gets_somewhere
        params["now"] = self._clock.now() if self._clock else None
        rows = await self._pool.write("journal_append", params)
        if not rows:
            raise await why_refused(self._pool, lease, write)
        return rows[0][0]

    async def load(self, session_id: SessionId, after: int = 0, limit: int | None = None) -> list[StoredLine]:
        rows = await self._pool.read(
            "journal_load", {"session": session_id, "after": after, "limit": _ALL if limit is None else limit}
        )
        return [StoredLine(*row) for row in rows]

    async def head(self, session_id: SessionId) -> tuple[int, int]:
        rows = await self._pool.read("journal_head", {"session": session_id})
        return (rows[0][0], rows[0][1]) if rows else (0, 0)


class PostgresSteps:
    def __init__(self, pool: Pool, clock: Clock | None) -> None:
        self._pool = pool
        self._clock = clock

    async def get(self, scope: str, name: str) -> bytes | None:
        rows = await self._pool.read("steps_get", {"scope": scope, "step": name})
        return rows[0][0] if rows else None

    async def put(self, lease: Lease, scope: str, name: str, result: bytes) -> bytes:
        rows = await self._pool.write(
            "steps_put",
            {
                "session": lease.session_id,
                "token": lease.token,
                "scope": scope,
                "step": name,
                "result": result,
                "now": self._now(),
            },
        )
        if not rows:
            raise LeaseLost
        if rows[0][0] is not None:
            return rows[0][0]
        recorded = await self.get(scope, name)
        return result if recorded is None else recorded

    def _now(self) -> datetime | None:
        return self._clock.now() if self._clock else None


class PostgresEvents:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, stream: str, after: int = 0, limit: int = 1_000) -> list[StoredEvent]:
        rows = await self._pool.read("events_read", {"stream": stream, "after": after, "limit": limit})
        return [StoredEvent(row[0], row[1], row[2], Raw(row[3]), row[4]) for row in rows]
