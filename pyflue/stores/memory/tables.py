"""The rows, and the two things every port does with them: fenced writes and taking leases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Raw
from msgspec.structs import replace

from pyflue.clock import Clock
from pyflue.dispatches import (
    OUTBOX_FINAL,
    TERMINAL,
    DedupeKey,
    Dispatch,
    Lease,
    OutboxDraft,
    OutboxItem,
    SessionAddress,
    WorkerRow,
)
from pyflue.entries import Entry, SummaryEntry, encode_entry, kind_of_entry
from pyflue.errors import LeaseLost, StoreError
from pyflue.events import Event, StoredEvent, encode_event, type_of
from pyflue.ids import DispatchId, OutboxId, SessionId, WorkerId
from pyflue.stores.protocol import StoredLine, TurnWrite


@dataclass
class Session:
    """One row of ``sessions`` with its journal, its mailbox and its part of the outbox, each in order."""

    address: SessionAddress
    created_at: datetime
    updated_at: datetime
    head: int = 0
    summary_seq: int = 0
    mailbox_head: int = 0
    outbox_head: int = 0
    due_at: datetime | None = None
    lease_owner: WorkerId | None = None
    lease_token: int = 0
    lines: list[StoredLine] = field(default_factory=list[StoredLine])
    mailbox: list[DispatchId] = field(default_factory=list[DispatchId])
    outbox: list[OutboxId] = field(default_factory=list[OutboxId])


@dataclass
class Admitted:
    """One row of ``admissions``: which dispatch a dedupe key led to, and the hash its caller gave."""

    dispatch_id: DispatchId
    accepted_at: datetime
    body_hash: bytes | None


class Tables:
    """All rows of one memory store."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sessions: dict[SessionId, Session] = {}
        self.admissions: dict[DedupeKey, Admitted] = {}
        self.dispatches: dict[DispatchId, Dispatch] = {}
        self.events: dict[str, list[StoredEvent]] = {}
        self.outbox: dict[OutboxId, OutboxItem] = {}
        self.outbox_owners: dict[OutboxId, WorkerId] = {}
        self.reply_keys: set[str] = set()
        self.steps: dict[tuple[str, str], bytes] = {}
        self.workers: dict[WorkerId, WorkerRow] = {}
        self.liveness: set[WorkerId] = set()

    def now(self) -> datetime:
        return self.clock.now()

    def fenced(self, lease: Lease) -> Session:
        """Return the lease's session; raise ``LeaseLost`` when its token is another, or the lease was given back."""
        session = self.sessions.get(lease.session_id)
        if session is None or session.lease_token != lease.token or session.lease_owner is None:
            raise LeaseLost
        return session

    def unsettled(self, session: Session) -> Iterator[Dispatch]:
        """Yield the session's unsettled dispatches, lowest position first."""
        for dispatch_id in session.mailbox:
            dispatch = self.dispatches[dispatch_id]
            if dispatch.status not in TERMINAL:
                yield dispatch

    def for_write(self, lease: Lease, write: TurnWrite) -> tuple[Session, Dispatch]:
        """Check everything a write may be refused for, before anything changes."""
        session = self.fenced(lease)
        if session.head != write.head:
            raise LeaseLost
        dispatch = self.dispatches.get(write.dispatch_id)
        if dispatch is None or dispatch.session_id != lease.session_id:
            raise StoreError(
                f"Dispatch {write.dispatch_id} is not in this session's mailbox.",
                fix="Write under the session the dispatch was admitted to.",
            )
        return session, dispatch

    def for_change(self, lease: Lease, write: TurnWrite) -> tuple[Session, Dispatch]:
        """Like ``for_write``, for a write that also changes the dispatch's status."""
        session, dispatch = self.for_write(lease, write)
        if dispatch.status in TERMINAL:
            raise StoreError(
                f"Dispatch {dispatch.id} is already settled ({dispatch.status}).",
                cause="A settled dispatch never changes.",
                fix="Replay it to run it again.",
            )
        return session, dispatch

    def apply(self, lease: Lease, session: Session, write: TurnWrite) -> list[OutboxItem]:
        """Append the entries, events and replies of a checked write; return the new outbox items."""
        self._append_entries(lease, session, write.dispatch_id, write.entries)
        self.add_events(write.dispatch_id, *write.events)
        session.updated_at = self.now()
        return [
            self._add_reply(lease.session_id, session, write.dispatch_id, draft)
            for draft in write.outbox
            if draft.idempotency_key not in self.reply_keys
        ]

    def _append_entries(
        self, lease: Lease, session: Session, dispatch_id: DispatchId, entries: Sequence[Entry]
    ) -> None:
        for entry in entries:
            session.head += 1
            line = StoredLine(
                session.head, dispatch_id, kind_of_entry(entry), encode_entry(entry), self.now(), lease.token
            )
            session.lines.append(line)
            if isinstance(entry, SummaryEntry):
                session.summary_seq = session.head

    def add_events(self, dispatch_id: DispatchId, *events: Event) -> None:
        """Number events from the counter on the dispatch's row."""
        stream = self.events.setdefault(dispatch_id, [])
        for event in events:
            dispatch = self.dispatches[dispatch_id]
            seq = dispatch.event_seq + 1
            self.dispatches[dispatch_id] = replace(dispatch, event_seq=seq)
            stream.append(StoredEvent(dispatch_id, seq, type_of(event), Raw(encode_event(event)), self.now()))

    def _add_reply(
        self, session_id: SessionId, session: Session, dispatch_id: DispatchId, draft: OutboxDraft
    ) -> OutboxItem:
        session.outbox_head += 1
        now = self.now()
        item = OutboxItem(
            id=draft.id,
            session_id=session_id,
            position=session.outbox_head,
            dispatch_id=dispatch_id,
            call_id=draft.call_id,
            part=draft.part,
            channel=draft.channel,
            destination=draft.destination,
            body=draft.body,
            idempotency_key=draft.idempotency_key,
            status="pending",
            attempts=0,
            available_at=now,
            created_at=now,
        )
        self.outbox[item.id] = item
        self.reply_keys.add(item.idempotency_key)
        session.outbox.append(item.id)
        return item

    def take(self, session_id: SessionId, worker_id: WorkerId) -> Lease:
        """Give the session to the worker under the next token; whether it may have it was decided before."""
        session = self.sessions[session_id]
        session.lease_owner = worker_id
        session.lease_token += 1
        return Lease(session_id, session.address, worker_id, session.lease_token, session.head, session.summary_seq)

    def free(self, session: Session) -> None:
        """Take the session from its owner, so that anybody may claim it and the owner's writes are refused."""
        session.lease_owner = None
        session.lease_token += 1
        session.due_at = session.due_at or self.now()

    def is_live(self, worker_id: WorkerId) -> bool:
        """Tell whether the worker may claim mailboxes."""
        worker = self.workers.get(worker_id)
        return worker is not None and worker.status == "live"

    def is_gone(self, worker_id: WorkerId | None) -> bool:
        """Tell whether what the worker holds may be taken from it: it is dead, or nobody knows it."""
        worker = self.workers.get(worker_id) if worker_id is not None else None
        return worker is None or worker.status == "dead"

    def take_reply(self, session_id: SessionId, worker_id: WorkerId) -> OutboxItem | None:
        """Take the session's lowest item that is not final, if it is due and nobody alive is sending it."""
        item = self.next_reply(session_id)
        if item is None or self.is_gone(worker_id) or not self.is_sendable(item):
            return None
        taken = replace(
            item,
            status="sending",
            attempts=item.attempts + 1,
            lease_token=item.lease_token + 1,
            recovered=item.recovered or item.status == "sending",
        )
        self.outbox[item.id] = taken
        self.outbox_owners[item.id] = worker_id
        return taken

    def next_reply(self, session_id: SessionId) -> OutboxItem | None:
        """Return the session's lowest item that is neither sent nor given up."""
        session = self.sessions.get(session_id)
        items = (self.outbox[outbox_id] for outbox_id in session.outbox) if session else ()
        return next((item for item in items if item.status not in OUTBOX_FINAL), None)

    def is_sendable(self, item: OutboxItem) -> bool:
        if item.status == "sending":
            return self.is_gone(self.outbox_owners.get(item.id))
        return item.available_at <= self.now()
