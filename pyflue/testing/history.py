"""The history checker: whether a run kept every promise, decided from what all sides recorded.

``check`` is a pure function. Each rule is one promise of the durability page and yields a sentence for every breach,
so that a failing run says what was broken and where. The rules about what the model was shown and about replies are
in ``history_prompts.py`` and ``history_replies.py``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from msgspec import Struct

from pyflue.dispatches import OUTBOX_FINAL, TERMINAL, Dispatch
from pyflue.entries import AnswerEntry, InputEntry, ToolResultEntry, ToolStartedEntry, decode_entry
from pyflue.events import DispatchSettled, DispatchStarted, decode_event
from pyflue.session.resume import continues
from pyflue.testing.history_prompts import answers_shown, asked_again, model_history, seen_by_model, shown_unchanged
from pyflue.testing.history_replies import replies, replies_recorded, replies_whole, reply_order, reply_place
from pyflue.testing.recorded import History, calls_of, unix

Rule = Callable[[History], Iterator[str]]


class Violation(Struct, frozen=True):
    """A promise that was not kept: its name and what was found."""

    rule: str
    found: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}"


def check(history: History) -> list[Violation]:
    """Return every breach; an empty list means that the run kept all promises."""
    return [Violation(name, found) for name, rule in RULES.items() for found in rule(history)]


def accepted_once(history: History) -> Iterator[str]:
    """Every accepted message is exactly one dispatch, also when it was delivered many times."""
    for delivery in history.deliveries:
        rows = [row for row in history.stored.dispatches if delivery.text in row.input.text]
        if len(rows) > 1:
            yield f"{delivery.text!r} became {len(rows)} dispatches"
        if delivery.accepted and not rows:
            yield f"{delivery.text!r} was accepted and is in no dispatch"
        known = {row.id for row in rows}
        if strange := set(delivery.dispatch_ids) - known:
            yield f"{delivery.text!r} was answered with {sorted(strange)}, which are not its dispatch"
        if delivery.refused and rows:
            yield f"{delivery.text!r} was refused and became {rows[0].id}"
    for row in history.stored.dispatches:
        if not any(delivery.text in row.input.text for delivery in history.deliveries):
            yield f"{row.id} holds what nobody sent"


def settled(history: History) -> Iterator[str]:
    """Every dispatch has exactly one outcome, the same in its row and in its events."""
    for row in history.stored.dispatches:
        events = [decode_event(event.data) for event in history.stored.events.get(row.id, ())]
        outcomes = [event.outcome for event in events if isinstance(event, DispatchSettled)]
        if row.status not in TERMINAL or row.settled_at is None:
            yield f"{row.id} is {row.status}"
        elif outcomes != [row.status]:
            yield f"{row.id} is {row.status} and its dispatch.settled events say {outcomes}"


def completed(history: History) -> Iterator[str]:
    """Faults of the machinery fail nobody: every dispatch is completed."""
    for row in history.stored.dispatches:
        if row.status in {"failed", "aborted"}:
            yield f"{row.id} is {row.status}: {row.error.code if row.error else 'no error'}"


def queue_order(history: History) -> Iterator[str]:
    """Messages of one thread, and only they, stand in one mailbox in the order they were sent, without gaps."""
    for session, rows in history.dispatches_by_session().items():
        if (positions := [row.position for row in rows]) != list(range(1, len(rows) + 1)):
            yield f"{session} has positions {positions}"
    threads: dict[str, list[Dispatch]] = defaultdict(list)
    for delivery in history.deliveries:
        row = next((row for row in history.stored.dispatches if delivery.text in row.input.text), None)
        if row is not None:
            threads[delivery.thread].append(row)
    for thread, rows in threads.items():
        if (positions := [row.position for row in rows]) != sorted(positions):
            yield f"thread {thread} was queued as {positions}"
    sessions = Counter(session for rows in threads.values() for session in {row.session_id for row in rows})
    if shared := sorted(session for session, count in sessions.items() if count > 1):
        yield f"{shared} hold messages of several threads"
    if split := sorted(thread for thread, rows in threads.items() if len({row.session_id for row in rows}) > 1):
        yield f"the threads {split} are in several sessions"


def worked_in_order(history: History) -> Iterator[str]:
    """A session works one dispatch at a time, in queue order, and reads each input once and as it was sent."""
    for session, rows in history.dispatches_by_session().items():
        places = {row.id: row.position for row in rows}
        for lines in history.journals_of(session):
            inputs = [line.dispatch_id for line in lines if isinstance(line.entry, InputEntry)]
            started = [row.id for row in rows if row.id in inputs or row.status == "completed"]
            if inputs != started:
                yield f"{session} read its inputs as {inputs}, and its mailbox is {started}"
            order = [places.get(line.dispatch_id, 0) for line in lines]
            if order != sorted(order):
                yield f"{session} has lines of dispatches in the order {order}"
        for row in rows:
            read = [entry.text for entry in history.entries_of(row) if isinstance(entry, InputEntry)]
            if set(read) - {row.input.text}:
                yield f"{row.id} read {read} and was sent {row.input.text!r}"
        for before, after in pairwise(rows):
            if before.settled_at and after.started_at and after.started_at < before.settled_at:
                yield f"{after.id} was started before {before.id} was settled"


def journal(history: History) -> Iterator[str]:
    """Journal numbers have no gaps, and no line was written under an older token than the line before it.

    Where an agent brings a store of its own, its numbers have none either, and answers and tools are in that one only.
    """
    for row in history.stored.sessions:
        lines = history.stored.lines.get(row.id, ())
        if (numbers := [line.seq for line in lines]) != list(range(1, len(lines) + 1)):
            yield f"{row.id} has lines {numbers}"
        if row.head != len(lines):
            yield f"{row.id} has head {row.head} and {len(lines)} lines"
        for before, after in pairwise(lines):
            if after.token < before.token:
                yield f"{row.id} line {after.seq} was written under token {after.token}, after {before.token}"
    for session, kept in history.stored.kept.items():
        if (numbers := [line.seq for line in kept]) != list(range(1, len(kept) + 1)):
            yield f"{session} has lines {numbers} in its agent's own store"
        kinds = {line.kind for line in history.stored.lines.get(session, ())}
        if strange := sorted(kinds & {"answer", "tool_started", "tool_result"}):
            yield f"{session} is kept in its agent's own store, and the main database holds {strange} of it"


def event_numbers(history: History) -> Iterator[str]:
    """Event numbers have no gaps, begin with the admission, and only replies follow the settlement."""
    for row in history.stored.dispatches:
        events = history.stored.events.get(row.id, ())
        if (numbers := [event.seq for event in events]) != list(range(1, row.event_seq + 1)):
            yield f"{row.id} has events {numbers}, and its counter is {row.event_seq}"
        types = [event.type for event in events]
        if types[:1] != ["dispatch.accepted"]:
            yield f"{row.id} has the events {types}"
        if "dispatch.settled" in types:
            late = {kind for kind in types[types.index("dispatch.settled") + 1 :] if not kind.startswith("reply.")}
            if late:
                yield f"{row.id} has {sorted(late)} after its settlement"


def attempts(history: History) -> Iterator[str]:
    """No attempt was spent beyond what the run allowed."""
    limit = history.bounds.attempts
    if limit is None:
        return
    for row in history.stored.dispatches:
        events = [decode_event(event.data) for event in history.stored.events.get(row.id, ())]
        highest = max((event.attempt for event in events if isinstance(event, DispatchStarted)), default=0)
        if highest > limit:
            yield f"{row.id} came to attempt {highest}"


def answers_recorded(history: History) -> Iterator[str]:
    """Recorded answers are never asked for again: every call has one result, and the one final answer is the outcome."""
    for row in history.stored.dispatches:
        open_calls: set[str] = set()
        final: list[str] = []
        for entry in history.entries_of(row):
            if isinstance(entry, AnswerEntry):
                answer = entry.as_answer()
                if open_calls:
                    yield f"{row.id} went on without results of {sorted(open_calls)}"
                if final:
                    yield f"{row.id} went on after its final answer"
                open_calls = {call.id for call in answer.tool_calls}
                final += [] if continues(answer) else [answer.text]
            elif isinstance(entry, ToolResultEntry):
                if entry.call_id not in open_calls:
                    yield f"{row.id} has a second or stray result of {entry.call_id}"
                open_calls.discard(entry.call_id)
        if row.settled_at and open_calls:
            yield f"{row.id} ended without results of {sorted(open_calls)}"
        if row.status == "completed" and final[-1:] != [row.result.text if row.result else ""]:
            yield f"{row.id} is completed with another text than its final answer, {final}"


def effects(history: History) -> Iterator[str]:
    """A tool that is not safe to repeat had its effect at most once and after its start was recorded.

    Every effect belongs to a call of a recorded answer, a recorded success had its effect, and a durable step had none
    after the one it recorded.
    """
    unsafe = Counter(effect.key for effect in history.effects if not effect.safe)
    for key, count in unsafe.items():
        if count > 1:
            yield f"{key} had its effect {count} times"
    happened = {effect.key: effect.safe for effect in history.effects}
    last = {effect.key: effect.result for effect in history.effects}
    tools = {effect.tool for effect in history.effects}
    for row in history.stored.dispatches:
        calls = {f"{row.id}:{one.key}": one for one in calls_of(history.entries_of(row))}
        for key, safe in happened.items():
            call = calls.get(key)
            if key.partition(":")[0] == row.id and (call is None or not (safe or call.started)):
                yield f"{key} had its effect before {'its call' if safe else 'its start'} was recorded"
        for key, call in calls.items():
            if call.result is None or call.result.outcome != "done" or call.result.name not in tools:
                continue
            if key not in happened:
                yield f"{row.id} records success of {call.key}, which had no effect"
            elif not call.result.content.endswith(last[key]):
                yield f"{key} records {call.result.content!r} and had its effect again: {last[key]!r}"


def unknown_outcomes(history: History) -> Iterator[str]:
    """An unknown outcome stands only where the start was recorded under an older lease, in a run with a crash.

    An agent's own store knows no leases: there the dispatch has to have been started again.
    """
    crashed = any(fault.crash for fault in history.faults)
    for row in history.stored.dispatches:
        if row.session_id in history.stored.kept:
            calls = [one for one in calls_of(history.entries_of(row)) if one.result and one.result.outcome == "unknown"]
            again = [event.type for event in history.stored.events.get(row.id, ())].count("dispatch.started") > 1
            lost = {one.key: one.started and again for one in calls}
        else:
            lost = _lost_under(history, row)
        for call in (call for call, was_lost in lost.items() if not (crashed and was_lost)):
            yield f"{row.id} records {call} as unknown without a crash"


def _lost_under(history: History, row: Dispatch) -> dict[str, bool]:
    """Return each unknown outcome of a dispatch, and whether its start was written under an older token."""
    started: dict[str, int] = {}
    lost: dict[str, bool] = {}
    for line in history.stored.lines.get(row.session_id, ()):
        entry = decode_entry(line.body) if line.dispatch_id == row.id else None
        if isinstance(entry, ToolStartedEntry):
            started[entry.call_id] = line.token
        elif isinstance(entry, ToolResultEntry) and entry.outcome == "unknown":
            lost[entry.call_id] = started.get(entry.call_id, line.token) < line.token
    return lost


def nothing_left(history: History) -> Iterator[str]:
    """No lease, no due mailbox and no unsent reply is left behind."""
    for row in history.stored.sessions:
        if row.lease_owner is not None or row.due_at is not None or row.unsettled:
            yield f"{row.id} is held by {row.lease_owner}, due {row.due_at}, with {row.unsettled} unsettled"
    for item in history.stored.outbox:
        if item.status not in OUTBOX_FINAL:
            yield f"{item.id} is {item.status}"
        elif item.status == "undeliverable":
            yield f"{item.id} was given up: {item.error}"


def liveness(history: History) -> Iterator[str]:
    """Once nothing is broken any more, every dispatch settles and is answered in time, counted from its turn."""
    healed = max((fault.ended for fault in history.faults), default=None)
    if healed is None:
        return
    limit = history.bounds.settle_within
    for rows in history.dispatches_by_session().values():
        could_begin = healed
        for row in rows:
            could_begin = max(could_begin, unix(row.accepted_at))
            replied = [event for event in history.stored.events.get(row.id, ()) if event.type == "reply.sent"]
            for what, ended in (("it", unix(row.settled_at)), *(("its reply", unix(event.at)) for event in replied)):
                if ended - could_begin > limit:
                    yield f"{row.id}: {what} took {ended - could_begin:.1f} s, and {limit:g} are allowed"
            could_begin = max(could_begin, unix(row.settled_at))


def not_vacuous(history: History) -> Iterator[str]:
    """A run proves nothing in which operations outside faults fail, or a fault met no work under way."""
    excused = [fault for fault in history.faults if fault.refusing]
    outside = [
        operation.succeeded
        for operation in history.operations
        if not any(fault.began <= operation.at <= fault.ended for fault in excused)
    ]
    worked = [(unix(row.accepted_at), unix(row.settled_at)) for row in history.stored.dispatches]
    for fault in history.faults:
        if not any(accepted <= fault.ended and fault.began <= ended for accepted, ended in worked):
            yield f"{fault.what} met no work"
    if not history.deliveries or not history.stored.dispatches:
        yield "nothing was sent or nothing was worked"
    if history.operations and not outside:
        yield "every operation fell into a fault"
    if outside and sum(outside) / len(outside) < history.bounds.success:
        yield f"{sum(outside)} of {len(outside)} operations outside faults succeeded"


RULES: Final[dict[str, Rule]] = {
    rule.__name__: rule
    for rule in (
        accepted_once,
        settled,
        completed,
        queue_order,
        worked_in_order,
        journal,
        event_numbers,
        attempts,
        answers_recorded,
        model_history,
        seen_by_model,
        shown_unchanged,
        answers_shown,
        asked_again,
        replies,
        replies_whole,
        reply_order,
        reply_place,
        replies_recorded,
        effects,
        unknown_outcomes,
        nothing_left,
        liveness,
        not_vacuous,
    )
}
"""Every rule by name, in the order of the road."""
