"""The JSON that ``--json`` prints, each shape written once. Replies' destinations are left out: they may hold secrets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from pyflue.dispatches import Dispatch, DispatchError, DispatchResult, OutboxItem, SessionAddress
from pyflue.stores.protocol import SessionRow


class InputReport(Struct, frozen=True):
    """What a dispatch brought. ``reply_channel`` and ``reply_mode`` are empty when nobody reads an answer."""

    text: str
    role: str
    type: str
    attributes: dict[str, str]
    payload: Raw | None
    reply_channel: str
    reply_mode: str


class DispatchReport(Struct, frozen=True):
    """One dispatch. Times are ISO 8601 in UTC, or null; ``attempts`` are those since it last made progress."""

    id: str
    status: str
    agent: str
    instance_id: str
    session: str
    session_id: str
    position: int
    attempts: int
    accepted_at: datetime
    available_at: datetime
    started_at: datetime | None
    deadline_at: datetime | None
    expires_at: datetime | None
    abort_requested_at: datetime | None
    settled_at: datetime | None
    replay_of: str | None
    traceparent: str
    event_seq: int
    input: InputReport
    result: DispatchResult | None
    error: DispatchError | None


class ReplyReport(Struct, frozen=True):
    """One part of a reply, as the outbox has it."""

    id: str
    position: int
    part: int
    channel: str
    status: str
    attempts: int
    created_at: datetime
    available_at: datetime
    body: str
    receipt: str
    error: str


class DispatchDetail(DispatchReport, frozen=True):
    """A dispatch with its replies. ``blocked_by`` says in words what it waits for; empty when
    it is settled and its replies are out."""

    replies: tuple[ReplyReport, ...]
    blocked_by: str


class SessionReport(Struct, frozen=True):
    """One session. ``head`` is the number of its last entry; ``lease_owner`` the worker that holds it."""

    id: str
    agent: str
    instance_id: str
    name: str
    head: int
    mailbox_head: int
    unsettled: int
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    lease_owner: str | None
    lease_token: int


class EntryReport(Struct, frozen=True):
    """One line of a journal. ``entry`` is null when its bytes cannot be read as JSON."""

    seq: int
    dispatch_id: str
    kind: str
    created_at: datetime
    entry: Raw | None


class SessionDetail(SessionReport, frozen=True):
    """A session with its latest dispatches, oldest first, and its latest entries, if they were asked for."""

    dispatches: tuple[DispatchReport, ...]
    entries: tuple[EntryReport, ...]


class WorkerReport(Struct, frozen=True):
    """One worker process. ``status`` as recorded; ``sessions`` is how many it holds."""

    id: str
    host: str
    pid: int
    status: str
    started_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    sessions: int
    agents: tuple[str, ...]


def dispatch_report(row: Dispatch, address: SessionAddress) -> DispatchReport:
    """Describe a dispatch of the session with that address."""
    given = row.input
    reply = given.reply
    return DispatchReport(
        id=row.id,
        status=row.status,
        agent=address.agent,
        instance_id=address.instance_id,
        session=address.name,
        session_id=row.session_id,
        position=row.position,
        attempts=row.attempts,
        accepted_at=row.accepted_at,
        available_at=row.available_at,
        started_at=row.started_at,
        deadline_at=row.deadline_at,
        expires_at=row.expires_at,
        abort_requested_at=row.abort_requested_at,
        settled_at=row.settled_at,
        replay_of=row.replay_of,
        traceparent=row.traceparent,
        event_seq=row.event_seq,
        input=InputReport(
            text=given.text,
            role=given.role,
            type=given.type,
            attributes=given.attributes,
            payload=given.payload,
            reply_channel=reply.channel if reply else "",
            reply_mode=reply.mode if reply else "",
        ),
        result=row.result,
        error=row.error,
    )


def dispatch_detail(
    row: Dispatch, address: SessionAddress, replies: Sequence[OutboxItem], blocked_by: str
) -> DispatchDetail:
    """Describe a dispatch with all that is around it."""
    report = msgspec.structs.asdict(dispatch_report(row, address))
    return DispatchDetail(**report, replies=tuple(map(reply_report, replies)), blocked_by=blocked_by)


def reply_report(item: OutboxItem) -> ReplyReport:
    return ReplyReport(
        id=item.id,
        position=item.position,
        part=item.part,
        channel=item.channel,
        status=item.status,
        attempts=item.attempts,
        created_at=item.created_at,
        available_at=item.available_at,
        body=item.body,
        receipt=item.receipt,
        error=item.error,
    )


def session_report(row: SessionRow) -> SessionReport:
    address = row.address
    return SessionReport(
        id=row.id,
        agent=address.agent,
        instance_id=address.instance_id,
        name=address.name,
        head=row.head,
        mailbox_head=row.mailbox_head,
        unsettled=row.unsettled,
        created_at=row.created_at,
        updated_at=row.updated_at,
        due_at=row.due_at,
        lease_owner=row.lease_owner,
        lease_token=row.lease_token,
    )


def as_json(report: Struct) -> str:
    """Write a report as one line of JSON."""
    return msgspec.json.encode(report).decode()
