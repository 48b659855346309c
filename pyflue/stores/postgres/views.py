"""What operators and callers read."""

from __future__ import annotations

from pyflue.clock import Clock
from pyflue.dispatches import OUTBOX_FINAL, Dispatch, OutboxItem, OutboxStatus, WorkerRow
from pyflue.ids import DispatchId, OutboxId, SessionId
from pyflue.stores.postgres.pool import Pool
from pyflue.stores.postgres.rows import dispatch_of, outbox_item_of, session_row_of, worker_row_of
from pyflue.stores.protocol import DispatchQuery, SessionQuery, SessionRow, Totals


class PostgresViews:
    def __init__(self, pool: Pool, clock: Clock | None) -> None:
        self._pool = pool
        self._clock = clock

    async def dispatch(self, dispatch_id: DispatchId) -> Dispatch | None:
        rows = await self._pool.read("views_dispatch", {"dispatch": dispatch_id})
        return dispatch_of(rows[0]) if rows else None

    async def dispatches(self, query: DispatchQuery) -> list[Dispatch]:
        name = "views_dispatches"
        if query.session_id is not None:
            name = "views_dispatches.of_session"
        elif query.status is not None:
            name = "views_dispatches.of_status"
        rows = await self._pool.read(
            name,
            {
                "status": query.status,
                "session": query.session_id,
                "before": query.before,
                "agent": query.agent,
                "limit": query.limit,
            },
        )
        return [dispatch_of(row) for row in rows]

    async def session(self, session_id: SessionId) -> SessionRow | None:
        rows = await self._pool.read("views_session", {"session": session_id})
        return session_row_of(rows[0]) if rows else None

    async def sessions(self, query: SessionQuery) -> list[SessionRow]:
        rows = await self._pool.read(
            "views_sessions", {"agent": query.agent, "after": query.after, "limit": query.limit}
        )
        return [session_row_of(row) for row in rows]

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
        elif status is not None and status not in OUTBOX_FINAL:
            name = "views_outbox.unsent"
        rows = await self._pool.read(
            name, {"session": session_id, "dispatch": dispatch_id, "status": status, "limit": limit}
        )
        return [outbox_item_of(row) for row in rows]

    async def outbox_item(self, outbox_id: OutboxId) -> OutboxItem | None:
        rows = await self._pool.read("views_outbox_item", {"id": outbox_id})
        return outbox_item_of(rows[0]) if rows else None

    async def workers(self) -> list[WorkerRow]:
        rows = await self._pool.read("views_workers", {"now": self._clock.now() if self._clock else None})
        return [worker_row_of(row) for row in rows]

    async def totals(self) -> Totals:
        rows = await self._pool.read("views_totals", {"now": self._clock.now() if self._clock else None})
        counts: dict[str, dict[str, int]] = {"dispatch": {}, "outbox": {}, "worker": {}}
        due_sessions, oldest = 0, 0.0
        for table, status, count, seconds in rows:
            if table == "due":
                due_sessions, oldest = count, seconds
            else:
                counts[table][status] = count
        return Totals(counts["dispatch"], counts["outbox"], counts["worker"], due_sessions, oldest)
