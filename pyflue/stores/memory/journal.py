"""Entries, steps and events."""

from __future__ import annotations

from msgspec.structs import replace

from pyflue.dispatches import Lease
from pyflue.events import StoredEvent
from pyflue.ids import SessionId
from pyflue.stores.memory.tables import Tables
from pyflue.stores.protocol import StoredLine, TurnWrite


class MemoryJournal:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def append(self, lease: Lease, write: TurnWrite) -> int:
        session, dispatch = self._tables.for_write(lease, write)
        if write.gets_somewhere:
            self._tables.dispatches[dispatch.id] = replace(dispatch, attempts=0)
        self._tables.apply(lease, session, write)
        return session.head

    async def load(self, session_id: SessionId, after: int = 0, limit: int | None = None) -> list[StoredLine]:
        session = self._tables.sessions.get(session_id)
        if session is None:
            return []
        start = max(after, 0)
        return session.lines[start:] if limit is None else session.lines[start : start + limit]

    async def head(self, session_id: SessionId) -> tuple[int, int]:
        session = self._tables.sessions.get(session_id)
        return (session.head, session.lease_token) if session else (0, 0)


class MemorySteps:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def get(self, scope: str, name: str) -> bytes | None:
        return self._tables.steps.get((scope, name))

    async def put(self, lease: Lease, scope: str, name: str, result: bytes) -> bytes:
        self._tables.fenced(lease)
        return self._tables.steps.setdefault((scope, name), result)


class MemoryEvents:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def read(self, stream: str, after: int = 0, limit: int = 1_000) -> list[StoredEvent]:
        start = max(after, 0)
        return self._tables.events.get(stream, [])[start : start + limit]
