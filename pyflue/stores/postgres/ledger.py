"""Dispatches, and who may work them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pyflue.clock import Clock
from pyflue.dispatches import Admission, Dispatch, Lease, Mailbox, OutboxItem, QueueLimits, Receipt, Refusal
from pyflue.errors import LeaseLost, StoreError
from pyflue.events import AbortRequested, encode_event
from pyflue.ids import DispatchId, SessionId, WorkerId
from pyflue.stores.postgres.admission import Admissions
from pyflue.stores.postgres.arrays import Texts
from pyflue.stores.postgres.pool import Pool, Row
from pyflue.stores.postgres.rows import dispatch_of, encode, lease_of, write_params
from pyflue.stores.protocol import Settled, Settlement, TurnWrite


class PostgresLedger:
    def __init__(self, pool: Pool, clock: Clock | None) -> None:
        self._pool = pool
        self._clock = clock
        self._admissions = Admissions(pool, clock)

    def _now(self) -> datetime | None:
        return self._clock.now() if self._clock else None

    async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[Receipt | Refusal]:
        return await self._admissions.admit(admissions, limits)

    async def claim(self, session_id: SessionId, worker_id: WorkerId, agents: frozenset[str]) -> Lease | None:
        rows = await self._pool.write(
            "ledger_claim",
            {"session": session_id, "worker": worker_id, "agents": Texts(agents), "now": self._now()},
        )
        return lease_of(rows[0], worker_id) if rows else None

    async def claim_due(self, worker_id: WorkerId, agents: frozenset[str], limit: int) -> list[Lease]:
        rows = await self._pool.write(
            "ledger_claim_due", {"worker": worker_id, "agents": Texts(agents), "limit": limit, "now": self._now()}
        )
        rows.sort(key=lambda row: (row[7], row[0]))
        return [lease_of(row, worker_id) for row in rows]

    async def mailbox(self, lease: Lease) -> Mailbox:
        rows = await self._pool.read(
            "ledger_mailbox", {"session": lease.session_id, "token": lease.token, "now": self._now()}
        )
        if not rows:
            raise LeaseLost
        row = rows[0]
        return Mailbox(row[0], row[2], None if row[3] is None else dispatch_of(row[3:]), row[1])

    async def begin(self, lease: Lease, write: TurnWrite, budget: timedelta) -> Dispatch:
        params = write_params(lease, write)
        params["budget"] = budget
        params["now"] = self._now()
        rows = await self._pool.write("ledger_begin", params)
        if not rows:
            raise await why_refused(self._pool, lease, write)
        return dispatch_of(rows[0])

    async def park(self, lease: Lease, write: TurnWrite, delay: timedelta, *, refund: bool) -> None:
        params = write_params(lease, write)
        params["delay"] = delay
        params["refund"] = refund
        params["now"] = self._now()
        if not await self._pool.write("ledger_park", params):
            raise await why_refused(self._pool, lease, write)

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled:
        params = write_params(lease, settlement.write)
        params["outcome"] = settlement.outcome
        params["result"] = None if settlement.result is None else encode(settlement.result)
        params["error"] = None if settlement.error is None else encode(settlement.error)
        params["seen"] = -1 if settlement.release_if_seen is None else settlement.release_if_seen
        params["keep"] = settlement.keep_first_reply
        params["worker"] = lease.worker_id
        params["now"] = self._now()
        rows = await self._pool.write("ledger_settle", params)
        if not rows:
            raise await why_refused(self._pool, lease, settlement.write)
        row = rows[0]
        return Settled(row[0], row[2], _kept_reply(lease, settlement.write, row) if row[4] else None)

    async def release(self, lease: Lease, seen: int) -> bool:
        rows = await self._pool.write(
            "ledger_release",
            {"session": lease.session_id, "token": lease.token, "seen": seen, "now": self._now()},
        )
        if not rows and not await holds(self._pool, lease):
            raise LeaseLost
        return bool(rows)

    async def request_abort(self, dispatch_id: DispatchId) -> Dispatch | None:
        rows = await self._pool.write(
            "ledger_request_abort",
            {"dispatch": dispatch_id, "event": encode_event(AbortRequested()), "now": self._now()},
        )
        if not rows:
            rows = await self._pool.read("views_dispatch", {"dispatch": dispatch_id})
        return dispatch_of(rows[0]) if rows else None


def _kept_reply(lease: Lease, write: TurnWrite, row: Row) -> OutboxItem:
    """Build the item the settlement took for delivery: the row is known without reading it back."""
    draft = write.outbox[0]
    now: datetime = row[3]
    return OutboxItem(
        id=draft.id,
        session_id=lease.session_id,
        position=row[1] - len(write.outbox) + 1,
        dispatch_id=write.dispatch_id,
        call_id=draft.call_id,
        part=draft.part,
        channel=draft.channel,
        destination=draft.destination,
        body=draft.body,
        idempotency_key=draft.idempotency_key,
        status="sending",
        attempts=1,
        available_at=now,
        created_at=now,
        lease_token=1,
    )


async def holds(pool: Pool, lease: Lease) -> bool:
    """Tell whether the lease is current, in a statement later than the one that was refused."""
    rows = await pool.read("journal_head", {"session": lease.session_id})
    return bool(rows) and rows[0][1] == lease.token and bool(rows[0][2])


async def why_refused(pool: Pool, lease: Lease, write: TurnWrite) -> LeaseLost | StoreError:
    """Find out why a fenced write changed nothing: the lease, the head, or the dispatch it names."""
    rows = await pool.read("journal_head", {"session": lease.session_id})
    if not rows or rows[0] != (write.head, lease.token, True):
        return LeaseLost()
    found = await pool.read("views_dispatch", {"dispatch": write.dispatch_id})
    if not found or found[0][1] != lease.session_id:
        return StoreError(
            f"Dispatch {write.dispatch_id} is not in this session's mailbox.",
            fix="Write under the session the dispatch was admitted to.",
        )
    return StoreError(
        f"Dispatch {write.dispatch_id} is already settled ({found[0][4]}).",
        cause="A settled dispatch never changes.",
        fix="Replay it to run it again.",
    )
