"""What operators and callers read."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pyflue.dispatches import Dispatch, OutboxItem, OutboxStatus, WorkerRow
from pyflue.ids import DispatchId, OutboxId, SessionId
from pyflue.stores.protocol import DispatchQuery, SessionQuery, SessionRow, Totals
from pyflue.stores.sqlite.database import Database
from pyflue.stores.sqlite.rows import dispatch_of, outbox_item_of, session_of, span, worker_of
from pyflue.stores.sqlite.statements import Statements

DEAD_WORKERS_SHOWN_FOR: Final = timedelta(days=1)
_MICROSECONDS_PER_SECOND: Final = 1_000_000


class SQLiteViews:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def dispatch(self, dispatch_id: DispatchId) -> Dispatch | None:
        row = await self._database.read(lambda work: work.one("views_dispatch", dispatch=dispatch_id))
        return dispatch_of(row) if row else None

    async def dispatches(self, query: DispatchQuery) -> list[Dispatch]:
        name = "views_dispatches"
        if query.session_id is not None:
            name = "views_dispatches.of_session"
        elif query.status is not None:
            name = "views_dispatches.of_status"

        def read(work: Statements) -> list[Dispatch]:
            rows = work.all(
                name,
                session=query.session_id,
                status=query.status,
                agent=query.agent,
                before=query.before,
                limit=query.limit,
            )
            return [dispatch_of(row) for row in rows]

        return await self._database.read(read)

    async def session(self, session_id: SessionId) -> SessionRow | None:
        row = await self._database.read(lambda work: work.one("views_session", session=session_id))
        return session_of(row) if row else None

    async def sessions(self, query: SessionQuery) -> list[SessionRow]:
        name = "views_sessions" if query.agent is None else "views_sessions.of_agent"

        def read(work: Statements) -> list[SessionRow]:
            rows = work.all(name, agent=query.agent, after=query.after, limit=query.limit)
            return [session_of(row) for row in rows]

        return await self._database.read(read)

    async def outbox(
        self,
        *,
        session_id: SessionId | None = None,
        dispatch_id: DispatchId | None = None,
        status: OutboxStatus | None = None,
        limit: int = 100,
    ) -> list[OutboxItem]:
        name = "views_outbox"
        if dispatch_id is not None:
            name = "views_outbox.of_dispatch"
        elif session_id is not None:
            name = "views_outbox.of_session"
        elif status is not None:
            name = "views_outbox.of_status"

        def read(work: Statements) -> list[OutboxItem]:
            rows = work.all(name, session=session_id, dispatch=dispatch_id, status=status, limit=limit)
            return [outbox_item_of(row) for row in rows]

        return await self._database.read(read)

    async def outbox_item(self, outbox_id: OutboxId) -> OutboxItem | None:
        row = await self._database.read(lambda work: work.one("views_outbox_item", id=outbox_id))
        return outbox_item_of(row) if row else None

    async def workers(self) -> list[WorkerRow]:
        def read(work: Statements) -> list[WorkerRow]:
            rows = work.all("views_workers", since=work.now - span(DEAD_WORKERS_SHOWN_FOR))
            return [worker_of(row) for row in rows]

        return await self._database.read(read)

    async def totals(self) -> Totals:
        return await self._database.read(_totals)


def _totals(work: Statements) -> Totals:
    counts: dict[str, dict[str, int]] = {"dispatches": {}, "outbox": {}, "workers": {}}
    for table, status, count in work.all("views_totals"):
        counts[table][status] = count
    due, oldest = work.all("views_totals.due", now=work.now)[0]
    return Totals(
        dispatches=counts["dispatches"],
        outbox=counts["outbox"],
        workers=counts["workers"],
        due_sessions=due,
        oldest_due_seconds=0.0 if oldest is None else (work.now - oldest) / _MICROSECONDS_PER_SECOND,
    )
