"""Dispatches, and who may work them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from pyflue.dispatches import (
    TERMINAL,
    Admission,
    Dispatch,
    Lease,
    Mailbox,
    QueueLimits,
    Receipt,
    Refusal,
)
from pyflue.errors import StoreError
from pyflue.events import AbortRequested, DispatchAccepted
from pyflue.ids import DispatchId, SessionId, WorkerId
from pyflue.stores.memory.tables import Admitted, Session, Tables
from pyflue.stores.protocol import Settled, Settlement, TurnWrite


class MemoryLedger:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[Receipt | Refusal]:
        return [self._admit_one(admission, limits) for admission in admissions]

    def _admit_one(self, admission: Admission, limits: QueueLimits) -> Receipt | Refusal:
        known = [row for key in admission.keys if (row := self._tables.admissions.get(key))]
        for row in known:
            if admission.body_hash and row.body_hash and row.body_hash != admission.body_hash:
                return Refusal("conflict", row.dispatch_id)
        if known:
            return Receipt(known[0].dispatch_id, known[0].accepted_at, duplicate=True)
        if refusal := self._refuse(admission, limits):
            return refusal
        dispatch = self._enqueue(admission)
        for key in admission.keys:
            self._tables.admissions[key] = Admitted(dispatch.id, dispatch.accepted_at, admission.body_hash)
        return Receipt(dispatch.id, dispatch.accepted_at)

    def _refuse(self, admission: Admission, limits: QueueLimits) -> Refusal | None:
        session = self._tables.sessions.get(admission.session_id)
        if session and sum(1 for _ in self._tables.unsettled(session)) >= limits.per_session:
            return Refusal("session_full", limit=limits.per_session)
        everywhere = sum(dispatch.status not in TERMINAL for dispatch in self._tables.dispatches.values())
        if everywhere >= limits.per_deployment:
            return Refusal("deployment_full", limit=limits.per_deployment)
        return None

    def _enqueue(self, admission: Admission) -> Dispatch:
        now = self._tables.now()
        session = self._tables.sessions.setdefault(admission.session_id, Session(admission.address, now, now))
        session.mailbox_head += 1
        session.due_at = session.due_at or now
        session.updated_at = now
        dispatch = Dispatch(
            id=admission.dispatch_id,
            session_id=admission.session_id,
            position=session.mailbox_head,
            input=admission.input,
            status="queued",
            attempts=0,
            accepted_at=now,
            available_at=now,
            expires_at=None if admission.expires_after is None else now + admission.expires_after,
            replay_of=admission.replay_of,
            traceparent=admission.traceparent,
        )
        self._tables.dispatches[dispatch.id] = dispatch
        session.mailbox.append(dispatch.id)
        source = admission.keys[0].source if admission.keys else ""
        self._tables.add_events(dispatch.id, DispatchAccepted(source))
        return dispatch

    async def claim(self, session_id: SessionId, worker_id: WorkerId, agents: frozenset[str]) -> Lease | None:
        if not self._tables.is_live(worker_id) or not self._is_claimable(session_id, agents):
            return None
        return self._tables.take(session_id, worker_id)

    async def claim_due(self, worker_id: WorkerId, agents: frozenset[str], limit: int) -> list[Lease]:
        if not self._tables.is_live(worker_id):
            return []
        due = [
            (session.due_at, session_id)
            for session_id, session in self._tables.sessions.items()
            if self._is_claimable(session_id, agents) and session.due_at
        ]
        return [self._tables.take(session_id, worker_id) for _, session_id in sorted(due)[:limit]]

    def _is_claimable(self, session_id: SessionId, agents: frozenset[str]) -> bool:
        session = self._tables.sessions.get(session_id)
        return (
            session is not None
            and session.lease_owner is None
            and session.due_at is not None
            and session.due_at <= self._tables.now()
            and session.address.agent in agents
        )

    async def mailbox(self, lease: Lease) -> Mailbox:
        session = self._tables.fenced(lease)
        unsettled = list(self._tables.unsettled(session))
        return Mailbox(session.mailbox_head, self._tables.now(), unsettled[0] if unsettled else None, len(unsettled))

    async def begin(self, lease: Lease, write: TurnWrite, budget: timedelta) -> Dispatch:
        session, dispatch = self._tables.for_change(lease, write)
        for other in self._tables.unsettled(session):
            if other.id != dispatch.id and other.status != "queued":
                raise StoreError(
                    f"Dispatch {other.id} of the same session is {other.status}.",
                    fix="Work the lowest unsettled position of a mailbox or nothing.",
                )
        now = self._tables.now()
        self._tables.dispatches[dispatch.id] = replace(
            dispatch,
            status="running",
            attempts=dispatch.attempts + 1,
            started_at=dispatch.started_at or now,
            deadline_at=dispatch.deadline_at or now + budget,
        )
        self._tables.apply(lease, session, write)
        return self._tables.dispatches[dispatch.id]

    async def park(self, lease: Lease, write: TurnWrite, delay: timedelta, *, refund: bool) -> None:
        session, dispatch = self._tables.for_change(lease, write)
        self._tables.dispatches[dispatch.id] = replace(
            dispatch,
            status="queued",
            attempts=max(dispatch.attempts - 1, 0) if refund and dispatch.status == "running" else dispatch.attempts,
            available_at=self._tables.now() + delay,
        )
        self._tables.apply(lease, session, write)

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled:
        write = settlement.write
        session, dispatch = self._tables.for_change(lease, write)
        self._tables.dispatches[dispatch.id] = replace(
            dispatch,
            status=settlement.outcome,
            settled_at=self._tables.now(),
            result=settlement.result,
            error=settlement.error,
        )
        older_reply = self._tables.next_reply(lease.session_id)
        replies = self._tables.apply(lease, session, write)
        kept = None
        if settlement.keep_first_reply and replies and older_reply is None:
            kept = self._tables.take_reply(lease.session_id, lease.worker_id)
        settled_all = not any(True for _ in self._tables.unsettled(session))
        released = settled_all and settlement.release_if_seen == session.mailbox_head
        if released:
            session.lease_owner = None
            session.due_at = None
        return Settled(session.head, released, kept)

    async def release(self, lease: Lease, seen: int) -> bool:
        session = self._tables.fenced(lease)
        if session.mailbox_head != seen:
            return False
        head = next(self._tables.unsettled(session), None)
        session.lease_owner = None
        session.due_at = None if head is None or head.status == "waiting" else head.available_at
        return True

    async def request_abort(self, dispatch_id: DispatchId) -> Dispatch | None:
        dispatch = self._tables.dispatches.get(dispatch_id)
        if dispatch is None or dispatch.status in TERMINAL:
            return dispatch
        now = self._tables.now()
        session = self._tables.sessions[dispatch.session_id]
        session.mailbox_head += 1
        session.due_at = now
        self._tables.dispatches[dispatch_id] = replace(
            dispatch,
            abort_requested_at=dispatch.abort_requested_at or now,
            available_at=now if dispatch.status == "queued" else dispatch.available_at,
        )
        if dispatch.abort_requested_at is None:
            self._tables.add_events(dispatch_id, AbortRequested())
        return self._tables.dispatches[dispatch_id]
