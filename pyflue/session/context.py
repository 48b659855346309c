"""The model's context: a pure function of the journal.

The same lines always give the same messages, so a prompt prefix keeps its bytes over a resume on any host.
Neighbouring user lines become one message, tool results first, which is what the Messages API asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from pyflue.entries import (
    AdvisoryEntry,
    AnswerEntry,
    HiddenEntry,
    InputEntry,
    JournalLine,
    SummaryEntry,
    ToolResultEntry,
)
from pyflue.messages import (
    AssistantMessage,
    Message,
    TextPart,
    ToolResultPart,
    UserMessage,
    UserPart,
)

NOT_RECORDED = "No result of this call was recorded."
BEGINNING_LOST = "(What was said before this could not be read.)"
NOTHING_SAID = "(This message is empty.)"

_TAG = re.compile(r"<(?=/?signal)", re.IGNORECASE)
_NAME = re.compile(r"[^A-Za-z0-9_.-]")


def build_messages(lines: Sequence[JournalLine]) -> tuple[Message, ...]:
    """Turn a session's lines into the provider's message array, valid whatever the lines say.

    Every tool call gets exactly one result: one the journal lacks is given as an error, one that answers no open
    call is left out. A user speaks first and no text is blank, because the provider refuses anything else.
    """
    building = _Building()
    for line in visible(lines):
        building.add(line)
    return building.finish()


def visible(lines: Iterable[JournalLine]) -> list[JournalLine]:
    """Leave out what a later summary stands for and what was hidden."""
    kept = list(lines)
    summary = max((line.seq for line in kept if isinstance(line.entry, SummaryEntry)), default=0)
    hidden = [line.entry for line in kept if isinstance(line.entry, HiddenEntry)]
    return [
        line
        for line in kept
        if line.seq >= summary and not any(span.from_seq <= line.seq <= span.to_seq for span in hidden)
    ]


def render_input(entry: InputEntry) -> str:
    """Write an input as the model reads it.

    A signal is wrapped in a tag that says who speaks; its text cannot close the tag, so nobody in a thread can speak
    for another.
    """
    if entry.role == "user":
        return entry.text
    attributes = "".join(
        f' {_NAME.sub("_", name)}="{escape(value, quote=True)}"' for name, value in sorted(entry.attributes.items())
    )
    kind = escape(entry.type or "message", quote=True)
    text = _TAG.sub("<\\\\", entry.text)
    return f'<signal type="{kind}"{attributes}>\n{text}\n</signal>'


class _Building:
    """Messages so far, the user parts waiting to become one, and the tool calls without a result."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._results: list[ToolResultPart] = []
        self._texts: list[TextPart] = []
        self._open: dict[str, str] = {}

    def add(self, line: JournalLine) -> None:
        match line.entry:
            case InputEntry() as entry:
                self._say(render_input(entry) if entry.text.strip() else NOTHING_SAID)
            case SummaryEntry(text):
                self._say(f"Summary of the conversation so far:\n{text}")
            case AdvisoryEntry(_, text, for_model=True):
                self._say(text)
            case ToolResultEntry() as entry:
                self._result(entry)
            case AnswerEntry() as entry if entry.content:
                self._flush()
                self._answer(entry)
            case _:
                pass

    def finish(self) -> tuple[Message, ...]:
        self._flush()
        return tuple(self._messages)

    def _answer(self, entry: AnswerEntry) -> None:
        last = self._messages[-1] if self._messages else None
        match last:
            case None:
                self._messages.append(UserMessage((TextPart(BEGINNING_LOST),)))
                self._messages.append(AssistantMessage(entry.content))
            case AssistantMessage(content):  # it paused and went on
                self._messages[-1] = AssistantMessage((*content, *entry.content))
            case UserMessage():
                self._messages.append(AssistantMessage(entry.content))
        self._open = {call.id: call.name for call in entry.as_answer().tool_calls}

    def _say(self, text: str) -> None:
        if text.strip():
            self._texts.append(TextPart(text))

    def _result(self, entry: ToolResultEntry) -> None:
        if self._open.pop(entry.call_id, None) is not None:
            self._results.append(ToolResultPart(entry.call_id, entry.content, entry.outcome != "done"))

    def _flush(self) -> None:
        self._results.extend(ToolResultPart(call_id, NOT_RECORDED, True) for call_id in self._open)
        parts: tuple[UserPart, ...] = (*self._results, *self._texts)
        if parts:
            self._messages.append(UserMessage(parts))
        self._results, self._texts, self._open = [], [], {}
