"""Where a dispatch stands, from its journal lines alone. Pure: recovery and first delivery ask the same question.

lines of the dispatch               next
──────────────────────────────────  ─────────────────────────────────────────────
none                                write the input
input                               ask the model
answer, some calls without result   run them (those marked started: by their retry policy)
answer, every call has a result     ask the model
answer without runnable calls       nothing: it is the final answer
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from pyflue.dispatches import DispatchResult
from pyflue.entries import AnswerEntry, InputEntry, JournalLine, ToolResultEntry, ToolStartedEntry
from pyflue.ids import DispatchId
from pyflue.messages import ModelAnswer, ToolUsePart, Usage

CONTINUES: Final[frozenset[str]] = frozenset({"tool_use", "pause_turn"})
"""Stop reasons after which the model is asked again; every other one ends the dispatch."""


class WriteInput(Struct, frozen=True):
    """The input is not in the journal yet."""


class AskModel(Struct, frozen=True):
    """The model's move."""


class PendingCall(Struct, frozen=True):
    """A tool call without a result. ``started``: an earlier attempt recorded that it was about to run.

    ``key`` names the call within its dispatch: its id, with a number when an earlier answer used the same id, as some
    gateways do.
    """

    call: ToolUsePart
    started: bool
    key: str


class RunTools(Struct, frozen=True):
    """Tool calls are to be run, or their unknown outcome recorded."""

    calls: tuple[PendingCall, ...]


class Finished(Struct, frozen=True):
    """The final answer is recorded."""

    answer: ModelAnswer


Next = WriteInput | AskModel | RunTools | Finished


class Tally(Struct, frozen=True):
    """What a dispatch has used so far, counted from its lines."""

    turns: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()


def of_dispatch(lines: Sequence[JournalLine], dispatch_id: DispatchId) -> list[JournalLine]:
    """Return the lines that belong to one dispatch."""
    return [line for line in lines if line.dispatch_id == dispatch_id]


def next_step(lines: Sequence[JournalLine]) -> Next:
    """Say what comes next, given the lines of one dispatch."""
    answer: ModelAnswer | None = None
    started: set[str] = set()
    ended: set[str] = set()
    has_input = False
    uses = Counter[str]()
    for line in lines:
        match line.entry:
            case InputEntry():
                has_input = True
            case AnswerEntry() as entry:
                answer = entry.as_answer()
                started, ended = set[str](), set[str]()  # call ids need only be unique within one answer
                uses.update({call.id for call in answer.tool_calls})
            case ToolStartedEntry(call_id):
                started.add(call_id)
            case ToolResultEntry(call_id):
                ended.add(call_id)
            case _:
                pass
    if answer is None:
        return AskModel() if has_input else WriteInput()
    if not continues(answer):
        return Finished(answer)
    pending = {
        call.id: PendingCall(call, call.id in started, _key(call.id, uses[call.id]))
        for call in answer.tool_calls
        if call.id not in ended
    }
    return RunTools(tuple(pending.values())) if pending else AskModel()


def _key(call_id: str, use: int) -> str:
    return call_id if use == 1 else f"{call_id}.{use}"


def continues(answer: ModelAnswer) -> bool:
    """Tell whether the model is to be asked again after this answer.

    An answer cut off by a limit may hold half a tool call; its calls are never run.
    """
    if answer.stop_reason == "tool_use":
        return bool(answer.tool_calls)
    return answer.stop_reason in CONTINUES


def open_calls(lines: Sequence[JournalLine]) -> tuple[ToolUsePart, ...]:
    """Return every call of the last answer that has no result, also those that must not run."""
    calls: dict[str, ToolUsePart] = {}
    for line in lines:
        match line.entry:
            case AnswerEntry() as entry:
                calls = {call.id: call for call in entry.as_answer().tool_calls}
            case ToolResultEntry(call_id):
                calls.pop(call_id, None)
            case _:
                pass
    return tuple(calls.values())


def tally(lines: Sequence[JournalLine]) -> Tally:
    """Count turns, tool calls and tokens of one dispatch."""
    answers = [line.entry for line in lines if isinstance(line.entry, AnswerEntry)]
    calls = sum(len(answer.as_answer().tool_calls) for answer in answers)
    return Tally(len(answers), calls, sum((answer.usage for answer in answers), Usage()))


def result_of(answer: ModelAnswer, used: Tally) -> DispatchResult:
    """Make the dispatch's result from its final answer and what all its turns used."""
    return DispatchResult(answer.text, used.usage, answer.model, used.turns, answer.stop_reason)
