"""A dispatch: one admitted unit of work with exactly one outcome. Its states, and what surrounds it.

Everything that affects the state of a dispatch or an outbox item is in the tables of this file; stores apply
them, and the diagrams in docs/reference/states.md are generated from them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from pyflue.ids import DispatchId, OutboxId, SessionId, WorkerId, session_id
from pyflue.messages import Usage

Status = Literal["queued", "running", "waiting", "completed", "failed", "aborted"]
Outcome = Literal["completed", "failed", "aborted"]
OutboxStatus = Literal["pending", "sending", "sent", "undeliverable"]
WorkerStatus = Literal["live", "draining", "dead"]
ReplyMode = Literal["auto", "tool", "none"]

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    # parked = queued with available_at in the future; running → running is a new attempt after a lost worker
    "queued": frozenset({"running", "completed", "failed", "aborted"}),
    "running": frozenset({"running", "queued", "waiting", "completed", "failed", "aborted"}),
    "waiting": frozenset({"queued", "running", "failed", "aborted"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "aborted": frozenset(),
}
TERMINAL: Final[frozenset[Status]] = frozenset(s for s, after in TRANSITIONS.items() if not after)

OUTBOX_TRANSITIONS: Final[dict[OutboxStatus, frozenset[OutboxStatus]]] = {
    # sending → sending is a recovered attempt: its worker died, or its answer was never read
    "pending": frozenset({"sending"}),
    "sending": frozenset({"sending", "pending", "sent", "undeliverable"}),
    "sent": frozenset(),
    "undeliverable": frozenset(),
}
OUTBOX_FINAL: Final[frozenset[OutboxStatus]] = frozenset(s for s, after in OUTBOX_TRANSITIONS.items() if not after)

WORKER_TRANSITIONS: Final[dict[WorkerStatus, frozenset[WorkerStatus]]] = {
    # a process that was declared dead and lives on registers anew, under a new id
    "live": frozenset({"draining", "dead"}),
    "draining": frozenset({"dead"}),
    "dead": frozenset(),
}


class SessionAddress(Struct, frozen=True):
    """Names one conversation: an agent, one instance of it (for chat, usually a thread), and a session name."""

    agent: str
    instance_id: str
    name: str = "default"

    @property
    def id(self) -> SessionId:
        return session_id(self.agent, self.instance_id, self.name)


class ReplyAddress(Struct, frozen=True):
    """Where answers go. ``destination`` is JSON that only the channel reads; the model never sees it."""

    channel: str
    destination: Raw
    mode: ReplyMode = "auto"
    failure_reply: str = ""


class DispatchInput(Struct, frozen=True, omit_defaults=True):
    """What one dispatch brings to its session. ``payload`` is JSON for the agent's initializer."""

    text: str
    role: Literal["user", "signal"] = "user"
    type: str = ""
    attributes: dict[str, str] = {}
    payload: Raw | None = None
    reply: ReplyAddress | None = None


class _StoredInput(Struct):
    """A ``DispatchInput`` as its JSON has it: msgspec reads a ``Raw`` field, but not one that may also be None."""

    text: str
    role: Literal["user", "signal"] = "user"
    type: str = ""
    attributes: dict[str, str] = {}
    payload: Raw = Raw()
    reply: ReplyAddress | None = None


_input_decoder = msgspec.json.Decoder(_StoredInput)


def encode_input(work: DispatchInput) -> bytes:
    return msgspec.json.encode(work)


def decode_input(body: bytes) -> DispatchInput:
    """Read a stored input; its ``payload`` comes back byte for byte."""
    stored = _input_decoder.decode(body)
    payload = stored.payload if len(stored.payload) else None
    return DispatchInput(stored.text, stored.role, stored.type, stored.attributes, payload, stored.reply)


class DedupeKey(Struct, frozen=True, order=True):
    """One id under which an event is known, scoped by its source (channel and installation)."""

    source: str
    key: str


class Admission(Struct, frozen=True):
    """A request to admit one dispatch.

    ``keys``: every id the event is known by; if any was seen before, the event is a duplicate.
    ``body_hash``: set for caller-supplied keys only: another hash under the same key is a conflict.
    ``expires_after``: how long it may stay queued before its first start.
    """

    dispatch_id: DispatchId
    address: SessionAddress
    input: DispatchInput
    keys: tuple[DedupeKey, ...]
    body_hash: bytes | None = None
    expires_after: timedelta | None = None
    replay_of: DispatchId | None = None
    traceparent: str = ""

    @property
    def session_id(self) -> SessionId:
        return self.address.id


class Receipt(Struct, frozen=True):
    """Proof of admission; a duplicate carries the first one's id and time."""

    dispatch_id: DispatchId
    accepted_at: datetime
    duplicate: bool = False


class Refusal(Struct, frozen=True):
    """Why an admission was refused. ``dispatch_id`` is the one that holds the key, for a conflict."""

    reason: Literal["conflict", "session_full", "deployment_full"]
    dispatch_id: DispatchId | None = None
    limit: int = 0


class QueueLimits(Struct, frozen=True):
    """How much unsettled work may wait: per session, and in the whole deployment."""

    per_session: int = 1_000
    per_deployment: int = 1_000_000


class DispatchResult(Struct, frozen=True, omit_defaults=True):
    """What a completed dispatch gave."""

    text: str
    usage: Usage = Usage()
    model: str = ""
    turns: int = 0
    stop_reason: str = ""


class DispatchError(Struct, frozen=True):
    """Why a dispatch failed: a stable code, and words for the operator. Never a stack trace or a secret."""

    code: str
    message: str


class Dispatch(Struct, frozen=True):
    """One row of the ledger."""

    id: DispatchId
    session_id: SessionId
    position: int
    input: DispatchInput
    status: Status
    attempts: int
    accepted_at: datetime
    available_at: datetime
    started_at: datetime | None = None
    deadline_at: datetime | None = None
    expires_at: datetime | None = None
    abort_requested_at: datetime | None = None
    settled_at: datetime | None = None
    result: DispatchResult | None = None
    error: DispatchError | None = None
    event_seq: int = 0
    replay_of: DispatchId | None = None
    traceparent: str = ""


class Lease(Struct, frozen=True):
    """The right to work one mailbox. ``token`` fences every write; ``head`` is the journal's last number at the claim."""

    session_id: SessionId
    address: SessionAddress
    worker_id: WorkerId
    token: int
    head: int
    summary_seq: int


class Mailbox(Struct, frozen=True):
    """What a lease holder read: the counter it read, the store's time, the lowest unsettled dispatch, how many behind it."""

    seen: int
    now: datetime
    head: Dispatch | None
    unsettled: int


class OutboxDraft(Struct, frozen=True):
    """A reply part to be sent. ``body`` is text the channel sends whole; ``destination`` is the channel's JSON."""

    id: OutboxId
    channel: str
    destination: Raw
    body: str
    idempotency_key: str
    call_id: str = ""
    part: int = 0


class OutboxItem(Struct, frozen=True):
    """One row of the outbox. ``recovered``: an earlier attempt may have reached the platform, so look before resending."""

    id: OutboxId
    session_id: SessionId
    position: int
    dispatch_id: DispatchId
    call_id: str
    part: int
    channel: str
    destination: Raw
    body: str
    idempotency_key: str
    status: OutboxStatus
    attempts: int
    available_at: datetime
    created_at: datetime
    lease_token: int = 0
    recovered: bool = False
    receipt: str = ""
    error: str = ""


class WorkerRow(Struct, frozen=True):
    """One process that works mailboxes."""

    id: WorkerId
    host: str
    pid: int
    status: WorkerStatus
    agents: tuple[str, ...]
    started_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    liveness_key: int = 0
    sessions: int = 0
