"""What operators and callers read."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from pyflue.dispatches import Dispatch, OutboxItem, OutboxStatus, WorkerRow, WorkerStatus
from pyflue.ids import DispatchId, OutboxId, SessionId
from pyflue.stores.memory.tables import Session, Tables
from pyflue.stores.protocol import DispatchQuery, SessionQuery, SessionRow, Totals

DEAD_WORKERS_SHOWN_FOR: Final = timedelta(days=1)
_ORDER: Final[dict[WorkerStatus, int]] = {"live": 0, "draining": 1, "dead": 2}


class MemoryViews:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def dispatch(self, dispatch_id: DispatchId) -> Dispatch | None:
        return self._tables.dispatches.get(dispatch_id)

    async def dispatches(self, query: DispatchQuery) -> list[Dispatch]:
        newest_first = sorted(self._tables.dispatches.values(), key=lambda dispatch: dispatch.id, reverse=True)
        return [dispatch for dispatch in newest_first if self._matches(dispatch, query)][: query.limit]

    def _matches(self, dispatch: Dispatch, query: DispatchQuery) -> bool:
        agent = self._tables.sessions[dispatch.session_id].address.agent
        return (
            query.status in (None, dispatch.status)
            and query.agent in (None, agent)
            and query.session_id in (None, dispatch.session_id)
            and (query.before is None or dispatch.id < query.before)
        )

    async def session(self, session_id: SessionId) -> SessionRow | None:
        session = self._tables.sessions.get(session_id)
        return self._row(session_id, session) if session else None

    async def sessions(self, query: SessionQuery) -> list[SessionRow]:
        rows = [
            self._row(session_id, session)
            for session_id, session in sorted(self._tables.sessions.items())
            if query.agent in (None, session.address.agent) and (query.after is None or session_id > query.after)
        ]
        return rows[: query.limit]

    def _row(self, session_id: SessionId, session: Session) -> SessionRow:
        return SessionRow(
            id=session_id,
            address=session.address,
            head=session.head,
            mailbox_head=session.mailbox_head,
            unsettled=sum(1 for _ in self._tables.unsettled(session)),
            created_at=session.created_at,
            updated_at=session.updated_at,
            due_at=session.due_at,
            lease_owner=session.lease_owner,
            lease_token=session.lease_token,
        )

    async def outbox(
        self,
        *,
        session_id: SessionId | None = None,
        dispatch_id: DispatchId | None = None,
        status: OutboxStatus | None = None,
        limit: int = 100,
    ) -> list[OutboxItem]:
        items = [
            item
            for item in self._tables.outbox.values()
            if session_id in (None, item.session_id)
            and dispatch_id in (None, item.dispatch_id)
            and status in (None, item.status)
        ]
        return sorted(items, key=lambda item: (item.session_id, item.position))[:limit]

    async def outbox_item(self, outbox_id: OutboxId) -> OutboxItem | None:
        return self._tables.outbox.get(outbox_id)

    async def workers(self) -> list[WorkerRow]:
        held = Counter(session.lease_owner for session in self._tables.sessions.values())
        since = self._tables.now() - DEAD_WORKERS_SHOWN_FOR
        rows = [
            replace(worker, sessions=held[worker.id])
            for worker in self._tables.workers.values()
            if worker.status != "dead" or worker.heartbeat_at >= since
        ]
        return sorted(rows, key=lambda worker: (_ORDER[worker.status], worker.id))

    async def totals(self) -> Totals:
        now = self._tables.now()
        due = [
            session.due_at
            for session in self._tables.sessions.values()
            if session.lease_owner is None and session.due_at and session.due_at <= now
        ]
        return Totals(
            dispatches=Counter(dispatch.status for dispatch in self._tables.dispatches.values()),
            outbox=Counter(item.status for item in self._tables.outbox.values()),
            workers=Counter(worker.status for worker in self._tables.workers.values()),
            due_sessions=len(due),
            oldest_due_seconds=(now - min(due)).total_seconds() if due else 0.0,
        )
