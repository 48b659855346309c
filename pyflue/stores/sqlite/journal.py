"""Entries, memoised steps and events."""

from __future__ import annotations

from pyflue.dispatches import Lease
from pyflue.errors import LeaseLost
from pyflue.events import StoredEvent
from pyflue.ids import SessionId
from pyflue.stores.protocol import StoredLine, TurnWrite
from pyflue.stores.sqlite.database import Database
from pyflue.stores.sqlite.rows import event_of, line_of
from pyflue.stores.sqlite.statements import Statements
from pyflue.stores.sqlite.turn import holds, pass_fence, record


class SQLiteJournal:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, lease: Lease, write: TurnWrite) -> int:
        def append(work: Statements) -> int:
            fenced = pass_fence(work, lease, write)
            if write.gets_somewhere:
                work.run("journal_append.progress", dispatch=write.dispatch_id)
            record(work, lease, write, fenced)
            return fenced.head

        return await self._database.write(append)

    async def load(self, session_id: SessionId, after: int = 0, limit: int | None = None) -> list[StoredLine]:
        bound = -1 if limit is None else limit

        def load(work: Statements) -> list[StoredLine]:
            return [line_of(row) for row in work.all("journal_load", session=session_id, after=after, limit=bound)]

        return await self._database.read(load)

    async def head(self, session_id: SessionId) -> tuple[int, int]:
        row = await self._database.read(lambda work: work.one("journal_head", session=session_id))
        return (row[0], row[1]) if row else (0, 0)


class SQLiteSteps:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, scope: str, name: str) -> bytes | None:
        row = await self._database.read(lambda work: work.one("steps_get", scope=scope, name=name))
        return row[0] if row else None

    async def put(self, lease: Lease, scope: str, name: str, result: bytes) -> bytes:
        def put(work: Statements) -> bytes:
            if not holds(work, lease):
                raise LeaseLost
            work.run("steps_put", scope=scope, name=name, result=result)
            return work.all("steps_get", scope=scope, name=name)[0][0]

        return await self._database.write(put)


class SQLiteEvents:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, stream: str, after: int = 0, limit: int = 1_000) -> list[StoredEvent]:
        def read(work: Statements) -> list[StoredEvent]:
            return [event_of(row) for row in work.all("events_read", stream=stream, after=after, limit=limit)]

        return await self._database.read(read)
