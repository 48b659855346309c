"""Replies that must leave."""

from __future__ import annotations

from datetime import timedelta

from pyflue.dispatches import OutboxItem
from pyflue.errors import LeaseLost
from pyflue.events import Event
from pyflue.ids import SessionId, WorkerId
from pyflue.stores.sqlite.database import Database
from pyflue.stores.sqlite.rows import outbox_item_of, span
from pyflue.stores.sqlite.statements import Row, Statements
from pyflue.stores.sqlite.turn import add_events


def take_reply(work: Statements, session_id: SessionId, worker_id: WorkerId) -> OutboxItem | None:
    """Take the session's lowest unsent reply for the worker, if it may be sent now."""
    row = work.one("outbox_claim", session=session_id, worker=worker_id, now=work.now)
    return outbox_item_of(row) if row else None


class SQLiteOutbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, session_id: SessionId, worker_id: WorkerId) -> OutboxItem | None:
        return await self._database.write(lambda work: take_reply(work, session_id, worker_id))

    async def claim_due(self, worker_id: WorkerId, limit: int) -> list[OutboxItem]:
        due = await self._database.read(
            lambda work: work.all("outbox_claim_due", now=work.now, worker=worker_id, limit=limit)
        )
        if not due:  # the usual case of a scan each second, which so never asks for the write lock
            return []

        def take_each(work: Statements) -> list[OutboxItem]:
            taken = (take_reply(work, row[0], worker_id) for row in due)
            return [item for item in taken if item is not None]

        return await self._database.write(take_each)

    async def sent(self, item: OutboxItem, worker_id: WorkerId, receipt: str, event: Event) -> OutboxItem | None:
        def sent(work: Statements) -> OutboxItem | None:
            row = work.one("outbox_sent", id=item.id, token=item.lease_token, receipt=receipt)
            _finish(work, row, item, event)
            return take_reply(work, item.session_id, worker_id)

        return await self._database.write(sent)

    async def retry(self, item: OutboxItem, delay: timedelta, reason: str, event: Event, *, ambiguous: bool) -> None:
        def retry(work: Statements) -> None:
            row = work.one(
                "outbox_retry",
                id=item.id,
                token=item.lease_token,
                available=work.now + span(delay),
                ambiguous=int(ambiguous),
                reason=reason,
            )
            _finish(work, row, item, event)

        await self._database.write(retry)

    async def undeliverable(
        self, item: OutboxItem, worker_id: WorkerId, reason: str, event: Event
    ) -> OutboxItem | None:
        def give_up(work: Statements) -> OutboxItem | None:
            row = work.one("outbox_undeliverable", id=item.id, token=item.lease_token, reason=reason)
            _finish(work, row, item, event)
            return take_reply(work, item.session_id, worker_id)

        return await self._database.write(give_up)


def _finish(work: Statements, row: Row | None, item: OutboxItem, event: Event) -> None:
    if row is None:
        raise LeaseLost
    add_events(work, item.dispatch_id, [event])
