"""What an observer may see: numbered per stream, committed with the state they describe.

A stream is a dispatch (later also a run). Types are dotted past tense. Events carry ids, counts and a short
preview of what was said; the journal holds the content. Secrets never enter an event.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from pyflue.dispatches import Outcome
from pyflue.messages import Usage

PREVIEW_CHARACTERS = 500  # enough to recognise an answer in a log line; the journal holds the whole


class _Event(Struct, frozen=True, tag_field="type", omit_defaults=True):
    pass


class DispatchAccepted(_Event, frozen=True, tag="dispatch.accepted"):
    """Admitted durably. ``source`` is the channel or caller it came through."""

    source: str = ""


class DispatchStarted(_Event, frozen=True, tag="dispatch.started"):
    attempt: int
    worker_id: str


class TurnAnswered(_Event, frozen=True, tag="turn.answered"):
    """The model's answer was recorded. ``turn`` counts from 1 in this dispatch; ``seq`` is its journal entry."""

    turn: int
    seq: int
    model: str
    stop_reason: str
    usage: Usage
    preview: str = ""
    tool_calls: tuple[str, ...] = ()
    duration_ms: int = 0


class ToolStarted(_Event, frozen=True, tag="tool.started"):
    call_id: str
    name: str


class ToolFinished(_Event, frozen=True, tag="tool.finished"):
    call_id: str
    name: str
    outcome: Literal["done", "error", "unknown", "not_run"]
    duration_ms: int = 0


class DispatchParked(_Event, frozen=True, tag="dispatch.parked"):
    """Put back with a time before which it is not worked; no worker is held meanwhile."""

    reason: str
    delay_ms: int
    message: str = ""


class DispatchHandedBack(_Event, frozen=True, tag="dispatch.handed_back"):
    """A stopping worker gave it back; no attempt was spent."""

    worker_id: str


class AbortRequested(_Event, frozen=True, tag="dispatch.abort_requested"):
    pass


class EntryQuarantined(_Event, frozen=True, tag="entry.quarantined"):
    """Bytes in the journal could not be decoded and were left out of the context."""

    seq: int


class DispatchSettled(_Event, frozen=True, tag="dispatch.settled"):
    outcome: Outcome
    turns: int = 0
    usage: Usage = Usage()
    replies: int = 0
    error_code: str = ""
    error_message: str = ""


class ReplySent(_Event, frozen=True, tag="reply.sent"):
    """The platform has the reply. ``receipt`` is its id there; ``found`` if it was already there when we looked."""

    outbox_id: str
    channel: str
    part: int
    receipt: str
    attempts: int
    found: bool = False


class ReplyDelayed(_Event, frozen=True, tag="reply.delayed"):
    outbox_id: str
    channel: str
    delay_ms: int
    reason: str


class ReplyUndeliverable(_Event, frozen=True, tag="reply.undeliverable"):
    outbox_id: str
    channel: str
    reason: str


Event = (
    DispatchAccepted
    | DispatchStarted
    | TurnAnswered
    | ToolStarted
    | ToolFinished
    | DispatchParked
    | DispatchHandedBack
    | AbortRequested
    | EntryQuarantined
    | DispatchSettled
    | ReplySent
    | ReplyDelayed
    | ReplyUndeliverable
)


class StoredEvent(Struct, frozen=True):
    """An event as read back. ``data`` is its JSON object without stream, seq and time; it may be of a newer release."""

    stream: str
    seq: int
    type: str
    data: Raw
    at: datetime


def type_of(event: Event) -> str:
    """Return the event's dotted name, which is also its tag in the stored JSON."""
    return str(type(event).__struct_config__.tag)


def encode_event(event: Event) -> bytes:
    return msgspec.json.encode(event)


def decode_event(data: bytes | Raw) -> Event | None:
    """Read a stored event; None when a newer release wrote it."""
    try:
        return msgspec.json.decode(data, type=Event)
    except msgspec.ValidationError:
        return None
