"""Replies that must leave."""

from __future__ import annotations

from datetime import datetime, timedelta

from pyflue.clock import Clock
from pyflue.dispatches import OutboxItem
from pyflue.errors import LeaseLost
from pyflue.events import Event, encode_event, type_of
from pyflue.ids import SessionId, WorkerId
from pyflue.stores.postgres.pool import Pool
from pyflue.stores.postgres.rows import outbox_item_of


class PostgresOutbox:
    def __init__(self, pool: Pool, clock: Clock | None) -> None:
        self._pool = pool
        self._clock = clock

    def _now(self) -> datetime | None:
        return self._clock.now() if self._clock else None

    async def claim(self, session_id: SessionId, worker_id: WorkerId) -> OutboxItem | None:
        rows = await self._pool.write("outbox_claim", {"session": session_id, "worker": worker_id, "now": self._now()})
        return outbox_item_of(rows[0]) if rows else None

    async def claim_due(self, worker_id: WorkerId, limit: int) -> list[OutboxItem]:
        rows = await self._pool.write("outbox_claim_due", {"worker": worker_id, "limit": limit, "now": self._now()})
        items = [outbox_item_of(row) for row in rows]
        items.sort(key=lambda item: (item.available_at, item.id))
        return items

    async def sent(self, item: OutboxItem, worker_id: WorkerId, receipt: str, event: Event) -> OutboxItem | None:
        params = self._finish(item, event)
        params["worker"] = worker_id
        params["receipt"] = _storable(receipt)
        return await self._next("outbox_sent", params)

    async def retry(self, item: OutboxItem, delay: timedelta, reason: str, event: Event, *, ambiguous: bool) -> None:
        params = self._finish(item, event)
        params["delay"] = delay
        params["reason"] = _storable(reason)
        params["ambiguous"] = ambiguous
        if not await self._pool.write("outbox_retry", params):
            raise LeaseLost

    async def undeliverable(
        self, item: OutboxItem, worker_id: WorkerId, reason: str, event: Event
    ) -> OutboxItem | None:
        params = self._finish(item, event)
        params["worker"] = worker_id
        params["reason"] = _storable(reason)
        return await self._next("outbox_undeliverable", params)

    def _finish(self, item: OutboxItem, event: Event) -> dict[str, object]:
        return {
            "id": item.id,
            "token": item.lease_token,
            "type": type_of(event),
            "event": encode_event(event),
            "now": self._now(),
        }

    async def _next(self, name: str, params: dict[str, object]) -> OutboxItem | None:
        rows = await self._pool.write(name, params)
        if not rows:
            raise LeaseLost
        return None if rows[0][0] is None else outbox_item_of(rows[0])


def _storable(text: str) -> str:
    """Replace NUL, which a platform may send and PostgreSQL does not keep in text."""
    return text.replace("\0", "\ufffd")
