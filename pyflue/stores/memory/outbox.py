"""Replies that must leave."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from pyflue.dispatches import OutboxItem
from pyflue.errors import LeaseLost
from pyflue.events import Event
from pyflue.ids import SessionId, WorkerId
from pyflue.stores.memory.tables import Tables


class MemoryOutbox:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def claim(self, session_id: SessionId, worker_id: WorkerId) -> OutboxItem | None:
        return self._tables.take_reply(session_id, worker_id)

    async def claim_due(self, worker_id: WorkerId, limit: int) -> list[OutboxItem]:
        waiting = [item for session_id in self._tables.sessions if (item := self._tables.next_reply(session_id))]
        taken: list[OutboxItem] = []
        for item in sorted(waiting, key=lambda item: (item.available_at, item.id)):
            if len(taken) < limit and (mine := self._tables.take_reply(item.session_id, worker_id)):
                taken.append(mine)
        return taken

    async def sent(self, item: OutboxItem, worker_id: WorkerId, receipt: str, event: Event) -> OutboxItem | None:
        self._finish(replace(self._held(item), status="sent", receipt=receipt, error=""), event)
        return self._tables.take_reply(item.session_id, worker_id)

    async def retry(self, item: OutboxItem, delay: timedelta, reason: str, event: Event, *, ambiguous: bool) -> None:
        pending = replace(
            self._held(item),
            status="pending",
            available_at=self._tables.now() + delay,
            recovered=ambiguous,
            error=reason,
        )
        self._finish(pending, event)

    async def undeliverable(
        self, item: OutboxItem, worker_id: WorkerId, reason: str, event: Event
    ) -> OutboxItem | None:
        self._finish(replace(self._held(item), status="undeliverable", error=reason), event)
        return self._tables.take_reply(item.session_id, worker_id)

    def _held(self, item: OutboxItem) -> OutboxItem:
        stored = self._tables.outbox.get(item.id)
        if stored is None or stored.status != "sending" or stored.lease_token != item.lease_token:
            raise LeaseLost
        return stored

    def _finish(self, item: OutboxItem, event: Event) -> None:
        self._tables.outbox[item.id] = item
        self._tables.outbox_owners.pop(item.id, None)
        self._tables.add_events(item.dispatch_id, event)
