"""The durable lines of a session's journal.

A journal is append-only and gapless; the model's context is a pure function of it (``session/context.py``).
Shapes only grow: new fields have defaults, tags never change, and a new kind ships in readers one release
before writers. ``tests/golden/entries.jsonl`` holds one line of every kind ever written.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec
from msgspec import Raw, Struct

from pyflue.errors import DamagedEntryError, UnknownEntryKindError
from pyflue.ids import DispatchId
from pyflue.messages import AnswerPart, ModelAnswer, StopReason, Usage

EntryKind = Literal["input", "answer", "tool_started", "tool_result", "summary", "advisory", "hidden", "state"]


class InputEntry(Struct, frozen=True, tag="input", tag_field="kind", omit_defaults=True):
    """What a dispatch brought: the user's text, or a signal with attributes (one of many speaking in a thread)."""

    text: str
    role: Literal["user", "signal"] = "user"
    type: str = ""
    attributes: dict[str, str] = {}


class AnswerEntry(Struct, frozen=True, tag="answer", tag_field="kind", omit_defaults=True):
    """One complete answer of the model, committed before any tool it asks for starts."""

    content: tuple[AnswerPart, ...]
    stop_reason: StopReason | str
    model: str
    usage: Usage = Usage()
    response_id: str = ""

    @classmethod
    def of(cls, answer: ModelAnswer) -> AnswerEntry:
        return cls(answer.content, answer.stop_reason, answer.model, answer.usage, answer.response_id)

    def as_answer(self) -> ModelAnswer:
        return ModelAnswer(self.content, self.stop_reason, self.model, self.usage, self.response_id)


class ToolStartedEntry(Struct, frozen=True, tag="tool_started", tag_field="kind"):
    """Committed before a tool that is not safe to repeat runs. Without a result, its outcome is unknown."""

    call_id: str
    name: str


class ToolResultEntry(Struct, frozen=True, tag="tool_result", tag_field="kind", omit_defaults=True):
    """How a tool call ended, as the model is told.

    ``outcome``: ``done``; ``error`` (the tool failed or was given bad arguments); ``unknown`` (a process died while it
    ran, so it may or may not have had its effect); ``not_run`` (the dispatch stopped before it started).
    """

    call_id: str
    name: str
    content: str
    outcome: Literal["done", "error", "unknown", "not_run"] = "done"


class SummaryEntry(Struct, frozen=True, tag="summary", tag_field="kind"):
    """Stands in for every entry before it when the context is built."""

    text: str


class AdvisoryEntry(Struct, frozen=True, tag="advisory", tag_field="kind", omit_defaults=True):
    """What an operator or a crash did to this conversation. Only ``for_model`` ones enter the context."""

    code: str
    text: str
    for_model: bool = False


class HiddenEntry(Struct, frozen=True, tag="hidden", tag_field="kind"):
    """Takes the entries ``from_seq`` to ``to_seq``, both included, out of the context."""

    from_seq: int
    to_seq: int


class StateEntry(Struct, frozen=True, tag="state", tag_field="kind"):
    """A per-session value; the last entry of a name holds."""

    name: str
    value: Raw


Entry = (
    InputEntry
    | AnswerEntry
    | ToolStartedEntry
    | ToolResultEntry
    | SummaryEntry
    | AdvisoryEntry
    | HiddenEntry
    | StateEntry
)

ENTRY_KINDS: frozenset[str] = frozenset(get_args(EntryKind))


class JournalLine(Struct, frozen=True):
    """An entry as stored: its number in the session, the dispatch it belongs to, and the entry."""

    seq: int
    dispatch_id: DispatchId
    entry: Entry


class _KindOnly(Struct):
    kind: str = ""


_decoder = msgspec.json.Decoder(Entry)
_kind_decoder = msgspec.json.Decoder(_KindOnly)


def kind_of_entry(entry: Entry) -> str:
    """Return the entry's kind, which is also its tag in the stored JSON."""
    return str(type(entry).__struct_config__.tag)


def encode_entry(entry: Entry) -> bytes:
    return msgspec.json.encode(entry)


def decode_entry(body: bytes) -> Entry:
    """Read a stored entry.

    Raises:
        UnknownEntryKindError: a newer release wrote it; the session must be left to a worker of that release.
        DamagedEntryError: the bytes are not an entry of any release; they are quarantined, never fatal.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        try:
            kind = _kind_decoder.decode(body).kind
        except (msgspec.DecodeError, UnicodeDecodeError):
            kind = ""
        if kind and kind not in ENTRY_KINDS:
            raise UnknownEntryKindError(kind) from error
        raise DamagedEntryError() from error
