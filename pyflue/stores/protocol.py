"""The durable side: small ports over one database, each method one promise and one transaction.

Time is the store's own clock (the database's for Postgres), so that hosts with wrong clocks agree; a store is
given a ``Clock`` only by tests. Durations go in, instants come out.

Errors every method may raise: ``StoreUnavailableError`` (nothing was begun) and, from a write,
``CommitUnknownError`` (it may have been committed: read again, never repeat blindly). A write under a lease
raises ``LeaseLost`` when the token is not the session's or the lease was given back, and then has changed nothing on
any table.

Lock order everywhere: session, dispatch, outbox, events.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Raw, Struct

from pyflue.dispatches import (
    Admission,
    Dispatch,
    DispatchError,
    DispatchResult,
    Lease,
    Mailbox,
    OutboxDraft,
    OutboxItem,
    OutboxStatus,
    Outcome,
    QueueLimits,
    Receipt,
    Refusal,
    SessionAddress,
    Status,
    WorkerRow,
)
from pyflue.entries import Entry
from pyflue.events import Event, StoredEvent
from pyflue.ids import DispatchId, OutboxId, SessionId, WorkerId


class TurnWrite(Struct, frozen=True):
    """What one fenced write adds. ``head`` is the journal's last number as the writer knows it.

    A reply whose ``idempotency_key`` is in the outbox already is left out of the write: it is on its way.

    ``progress``: the new entries mean the attempt got somewhere, so the attempt count starts again. ``kept_elsewhere``
    counts entries that go to the agent's own conversation store and mean the same.
    """

    dispatch_id: DispatchId
    head: int
    entries: tuple[Entry, ...] = ()
    events: tuple[Event, ...] = ()
    outbox: tuple[OutboxDraft, ...] = ()
    progress: bool = True
    kept_elsewhere: int = 0

    @property
    def gets_somewhere(self) -> bool:
        """Whether the attempt count starts again with this write."""
        return self.progress and bool(self.entries or self.kept_elsewhere)


class Settlement(Struct, frozen=True):
    """How a dispatch ends, with everything that must be true at the same instant.

    ``release_if_seen``: also give the lease back, if the mailbox counter is still this and nothing else is unsettled.
    ``keep_first_reply``: take the first reply for delivery by the settling worker in the same transaction
    (status ``sending``), if nothing older of the session is unsent.
    """

    write: TurnWrite
    outcome: Outcome
    result: DispatchResult | None = None
    error: DispatchError | None = None
    release_if_seen: int | None = None
    keep_first_reply: bool = False


class Settled(Struct, frozen=True):
    """What a settlement did besides settling."""

    head: int
    released: bool
    reply: OutboxItem | None = None


class StoredLine(Struct, frozen=True):
    """A journal line as stored; ``body`` may be damaged or of a newer release, which is the reader's to judge."""

    seq: int
    dispatch_id: DispatchId
    kind: str
    body: bytes
    created_at: datetime
    token: int = 0


class Heartbeat(Struct, frozen=True):
    """What a worker learns from its heartbeat.

    ``alive`` false: it was declared dead and has lost every lease; it must register anew.
    ``aborts``: dispatches in the sessions it holds that somebody asked to abort.
    """

    alive: bool
    aborts: tuple[DispatchId, ...] = ()


class Ledger(Protocol):
    """Dispatches and who may work them."""

    async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[Receipt | Refusal]:
        """Admit many dispatches in one transaction; answers come in the order asked.

        An admission none of whose keys was ever seen is queued at the end of its session's mailbox, with its
        ``dispatch.accepted`` event; commit order is queue order. Any known key makes it a duplicate: nothing
        changes (its other keys are not taken) and the first receipt comes back. Admissions of one call may share
        keys or sessions. The lease and the journal are never touched. Refusals leave no trace.
        """
        ...

    async def claim(self, session_id: SessionId, worker_id: WorkerId, agents: frozenset[str]) -> Lease | None:
        """Take a mailbox that is due and that no live worker holds; waits for the row; the token grows by one.

        None: somebody holds it, nothing is due, its agent is not among ``agents``, or this worker is not live.
        """
        ...

    async def claim_due(self, worker_id: WorkerId, agents: frozenset[str], limit: int) -> list[Lease]:
        """Take up to ``limit`` due mailboxes that nobody holds, oldest first, skipping rows that are locked."""
        ...

    async def mailbox(self, lease: Lease) -> Mailbox:
        """Read the mailbox: its counter and its lowest unsettled dispatch. Must be a later statement than the claim."""
        ...

    async def begin(self, lease: Lease, write: TurnWrite, budget: timedelta) -> Dispatch:
        """Start an attempt: ``running``, one more attempt, first start and deadline stamped once; appends what ``write``
        holds in the same transaction (which is not progress).

        Raises:
            StoreError: it is settled, or another dispatch of the session is ``running`` or ``waiting``.
        """
        ...

    async def park(self, lease: Lease, write: TurnWrite, delay: timedelta, *, refund: bool) -> None:
        """Put the dispatch back to ``queued`` with ``available_at`` = now + delay. ``refund`` gives the attempt back
        that is ``running``, if one is. The lease is kept: release it next."""
        ...

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled:
        """End the dispatch: last entries, status, result or error, replies and events in one transaction.

        Raises:
            StoreError: it is settled already; nothing has changed. (``begin`` and ``park`` do the same.)
        """
        ...

    async def release(self, lease: Lease, seen: int) -> bool:
        """Give the lease back if the mailbox counter is still ``seen``; the session is then due when its head is, or never.

        Never: nothing is unsettled, or the head is ``waiting``. False: something arrived since; read the mailbox
        again. A token that is not current raises ``LeaseLost`` here too, never False.
        """
        ...

    async def request_abort(self, dispatch_id: DispatchId) -> Dispatch | None:
        """Ask for the dispatch to be aborted (the first request's time is kept) and make its session due now.

        The first request adds the ``dispatch.abort_requested`` event; each advances the mailbox counter, so that no
        release misses it, and a queued dispatch becomes available now. Settled dispatches are left as they are.
        None if there is no such dispatch.
        """
        ...


class Journal(Protocol):
    """The entries of a session: append only, gapless, fenced."""

    async def append(self, lease: Lease, write: TurnWrite) -> int:
        """Append entries, events and outbox items; return the new head.

        Raises:
            LeaseLost: the token is not current, or the head is not ``write.head``.
        """
        ...

    async def load(self, session_id: SessionId, after: int = 0, limit: int | None = None) -> list[StoredLine]:
        """Read lines with numbers above ``after``, in order."""
        ...

    async def head(self, session_id: SessionId) -> tuple[int, int]:
        """Return ``(head, lease_token)`` as committed now; ``(0, 0)`` for a session nobody wrote to."""
        ...


class Outbox(Protocol):
    """Replies that must leave, one at a time and in order for each session."""

    async def claim(self, session_id: SessionId, worker_id: WorkerId) -> OutboxItem | None:
        """Take the session's lowest unsent item if it is due and nobody live is sending it; ``sending`` is committed.

        None too if this worker is dead or unknown; a draining one may still send.

        ``recovered`` is set when an earlier attempt may have reached the platform.
        """
        ...

    async def claim_due(self, worker_id: WorkerId, limit: int) -> list[OutboxItem]:
        """Take up to ``limit`` such items of any sessions, at most one of each session."""
        ...

    async def sent(self, item: OutboxItem, worker_id: WorkerId, receipt: str, event: Event) -> OutboxItem | None:
        """Mark it sent and return the session's next item, already taken, or None.

        Raises:
            LeaseLost: another worker has taken the item over.
        """
        ...

    async def retry(self, item: OutboxItem, delay: timedelta, reason: str, event: Event, *, ambiguous: bool) -> None:
        """Put it back to ``pending`` until now + delay. ``ambiguous``: the platform may have it, so look first next time."""
        ...

    async def undeliverable(
        self, item: OutboxItem, worker_id: WorkerId, reason: str, event: Event
    ) -> OutboxItem | None:
        """Give up on it, which frees the next; returns the next as ``sent`` does."""
        ...


class Steps(Protocol):
    """Memoised results of durable tool steps and workflow steps."""

    async def get(self, scope: str, name: str) -> bytes | None:
        """Return the recorded result of a step, as JSON, or None."""
        ...

    async def put(self, lease: Lease, scope: str, name: str, result: bytes) -> bytes:
        """Record a step's result under the lease; the first one recorded wins and is returned."""
        ...


class Events(Protocol):
    """Numbered events of a stream. They are written by the transactions they describe."""

    async def read(self, stream: str, after: int = 0, limit: int = 1_000) -> list[StoredEvent]:
        """Read events numbered above ``after``, in order; numbers never skip."""
        ...


class Fleet(Protocol):
    """The worker processes, and judging which are dead."""

    async def register(self, worker: WorkerRow, lease_time: timedelta) -> None:
        """Add this process as ``live`` and take its liveness lock, held until ``retire``.

        An id that was registered before frees what it still held, as ``retire`` does, and is ``live`` again.
        """
        ...

    async def heartbeat(self, worker_id: WorkerId, lease_time: timedelta) -> Heartbeat:
        """Prove this process alive for another ``lease_time``; takes a dropped liveness lock back."""
        ...

    async def drain(self, worker_id: WorkerId) -> None:
        """Mark this process ``draining``: it claims no more."""
        ...

    async def retire(self, worker_id: WorkerId) -> None:
        """Mark this process ``dead``, free what it still holds, and let its liveness lock go."""
        ...

    async def reap(self, grace: timedelta) -> list[WorkerId]:
        """Mark dead every worker whose lease ran out, or whose liveness lock is free and whose heartbeat is older than
        ``grace``."""
        ...

    async def free(self, limit: int) -> list[SessionId]:
        """Free up to ``limit`` sessions held by dead or unknown workers, token + 1, skipping locked rows.

        They stay due; one that was due never is due now.
        """
        ...

    async def disown(
        self, worker_id: WorkerId, sessions: Sequence[SessionId], items: Sequence[OutboxId]
    ) -> list[SessionId]:
        """Free the sessions (token + 1) and outbox items this live worker holds beyond those it names.

        They come from a claim whose answer never reached it. A freed item is taken as ``recovered`` next time.
        """
        ...

    async def unclaimable(self, after: timedelta, limit: int, worker_id: WorkerId) -> list[Lease]:
        """Take due sessions whose agent no live worker has advertised for ``after``, so that they can be settled failed."""
        ...


class DispatchQuery(Struct, frozen=True):
    """A page of dispatches, newest first; ``before`` is the last id of the page before."""

    status: Status | None = None
    agent: str | None = None
    session_id: SessionId | None = None
    before: DispatchId | None = None
    limit: int = 50


class SessionQuery(Struct, frozen=True):
    """A page of sessions by id; ``after`` is the last id of the page before."""

    agent: str | None = None
    after: SessionId | None = None
    limit: int = 50


class SessionRow(Struct, frozen=True):
    """One session as an operator sees it."""

    id: SessionId
    address: SessionAddress
    head: int
    mailbox_head: int
    unsettled: int
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None = None
    lease_owner: WorkerId | None = None
    lease_token: int = 0


class Totals(Struct, frozen=True):
    """The deployment at a glance."""

    dispatches: dict[str, int]
    outbox: dict[str, int]
    workers: dict[str, int]
    due_sessions: int
    oldest_due_seconds: float


class Views(Protocol):
    """What operators and callers read. Bounded, never under a lease."""

    async def dispatch(self, dispatch_id: DispatchId) -> Dispatch | None:
        """Return one dispatch."""
        ...

    async def dispatches(self, query: DispatchQuery) -> list[Dispatch]:
        """Return a page of dispatches, newest first."""
        ...

    async def session(self, session_id: SessionId) -> SessionRow | None:
        """Return one session."""
        ...

    async def sessions(self, query: SessionQuery) -> list[SessionRow]:
        """Return a page of sessions."""
        ...

    async def outbox(
        self,
        *,
        session_id: SessionId | None = None,
        dispatch_id: DispatchId | None = None,
        status: OutboxStatus | None = None,
        limit: int = 100,
    ) -> list[OutboxItem]:
        """Return outbox items in session and position order."""
        ...

    async def outbox_item(self, outbox_id: OutboxId) -> OutboxItem | None:
        """Return one outbox item."""
        ...

    async def workers(self) -> list[WorkerRow]:
        """Return every worker seen lately, live ones first, with the number of sessions each holds."""
        ...

    async def totals(self) -> Totals:
        """Count what there is; cheap enough to call every few seconds."""
        ...


class Store(Protocol):
    """Everything durable, behind one connection setting."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def steps(self) -> Steps: ...
    @property
    def events(self) -> Events: ...
    @property
    def fleet(self) -> Fleet: ...
    @property
    def views(self) -> Views: ...

    async def open(self) -> None:
        """Connect and check the schema.

        Raises:
            StoreUnavailableError: the database does not answer.
            SchemaError: migrations are missing, changed, or of a newer release.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way and disconnect; idempotent."""
        ...

    async def migrate(self) -> list[str]:
        """Apply missing migrations under a lock; return their names. Safe to run from many processes at once."""
        ...

    async def ready(self) -> None:
        """Return when the store answers; raise ``StoreUnavailableError`` when it does not within a second or so."""
        ...


class SessionStore(Protocol):
    """A conversation store an agent may bring (``"persist": SQLiteSessionStore(path)``).

    Only journal entries live here; the ledger stays in the main database.
    """

    async def append(self, session: str, expected_head: int, entries: Sequence[bytes]) -> int:
        """Append entries if the session's head is ``expected_head``, all or none; return the new head.

        ``entries`` are JSON bytes. Raises:
            HeadMoved: the head is another.
        """
        ...

    async def load(self, session: str, after: int = 0) -> list[tuple[int, bytes]]:
        """Return ``(number, entry)`` pairs with numbers above ``after``, in order; numbers start at 1 and have no gaps."""
        ...

    async def delete(self, session: str) -> None:
        """Remove the session's entries; unknown sessions are not an error."""
        ...


class HeadMoved(Exception):
    """``SessionStore.append`` found another head than expected. ``head`` is the one it found."""

    def __init__(self, head: int) -> None:
        self.head = head
        super().__init__(f"the session's head is {head}")


class EntryLine(Struct, frozen=True):
    """A journal line as kept in a ``SessionStore``: the entry's JSON with the dispatch it belongs to."""

    dispatch_id: DispatchId
    entry: Raw
