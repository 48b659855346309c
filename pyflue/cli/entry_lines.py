"""A journal line for an operator. Bytes that no release wrote, or that a newer one did, are shown as that."""

from __future__ import annotations

from datetime import UTC
from typing import assert_never

import msgspec
from msgspec import Raw

from pyflue.cli.reports import EntryReport
from pyflue.entries import (
    AdvisoryEntry,
    AnswerEntry,
    Entry,
    HiddenEntry,
    InputEntry,
    StateEntry,
    SummaryEntry,
    ToolResultEntry,
    ToolStartedEntry,
    decode_entry,
)
from pyflue.errors import DamagedEntryError, UnknownEntryKindError
from pyflue.messages import AnswerPart, OtherPart, RedactedThinkingPart, TextPart, ThinkingPart, ToolUsePart
from pyflue.stores.protocol import StoredLine


def entry_report(line: StoredLine) -> EntryReport:
    """Describe a line with its entry as stored."""
    try:
        msgspec.json.decode(line.body)
        body = Raw(line.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    return EntryReport(line.seq, line.dispatch_id, line.kind, line.created_at, body)


def entry_row(line: StoredLine) -> tuple[str, ...]:
    """Return the cells of a line: number, time, kind, dispatch, content."""
    return (
        str(line.seq),
        line.created_at.astimezone(UTC).strftime("%m-%d %H:%M:%S"),
        line.kind,
        line.dispatch_id,
        _content(line.body),
    )


def _content(body: bytes) -> str:
    try:
        return _told(decode_entry(body))
    except DamagedEntryError:
        return "(damaged: these bytes are no entry)"
    except UnknownEntryKindError:
        return "(of a newer release)"


def _told(entry: Entry) -> str:
    match entry:
        case InputEntry():
            sender = entry.attributes.get("sender", "")
            return f"{sender}: {entry.text}" if sender else entry.text
        case AnswerEntry():
            return "  ".join(filter(None, map(_part, entry.content))) or f"({entry.stop_reason})"
        case ToolStartedEntry():
            return f"{entry.name} {entry.call_id}"
        case ToolResultEntry():
            return f"{entry.name} {entry.outcome}: {entry.content}"
        case SummaryEntry():
            return entry.text
        case AdvisoryEntry():
            return f"{entry.code}: {entry.text}"
        case HiddenEntry():
            return f"hides {entry.from_seq} to {entry.to_seq}"
        case StateEntry():
            return f"{entry.name} = {bytes(entry.value).decode(errors='backslashreplace')}"
        case _:
            assert_never(entry)


def _part(part: AnswerPart) -> str:
    match part:
        case TextPart():
            return part.text
        case ToolUsePart():
            return f"→ {part.name}({bytes(part.input).decode(errors='backslashreplace')})"
        case ThinkingPart():
            return f"(thinking: {part.thinking})"
        case RedactedThinkingPart():
            return "(thinking, not shown)"
        case OtherPart():
            return "(a part this release has no name for)"
        case _:
            assert_never(part)
