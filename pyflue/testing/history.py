"""The history checker: whether a run kept every promise, decided from what all sides recorded.

``check`` is a pure function. Each rule below it is one promise of the durability page and yields a sentence for
every breach, so that a failing run says what was broken and where.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

import msgspec
from msgspec import Raw, Struct

from pyflue.dispatches import OUTBOX_FINAL, TERMINAL, Dispatch
from pyflue.entries import AnswerEntry, Entry, InputEntry, ToolResultEntry, ToolStartedEntry, decode_entry
from pyflue.events import DispatchStarted, decode_event
from pyflue.testing.recorded import History, unix

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
    for row in history.stored.dispatches:
        if not any(delivery.text in row.input.text for delivery in history.deliveries):
            yield f"{row.id} holds what nobody sent"


def settled(history: History) -> Iterator[str]:
    """Every dispatch has exactly one outcome."""
    for row in history.stored.dispatches:
        outcomes = [event.type for event in history.stored.events.get(row.id, ())].count("dispatch.settled")
        if row.status not in TERMINAL or row.settled_at is None:
            yield f"{row.id} is {row.status}"
        elif outcomes != 1:
            yield f"{row.id} is {row.status} and has {outcomes} dispatch.settled events"


def completed(history: History) -> Iterator[str]:
    """Faults of the machinery fail nobody: every dispatch is completed."""
    for row in history.stored.dispatches:
        if row.status in {"failed", "aborted"}:
            yield f"{row.id} is {row.status}: {row.error.code if row.error else 'no error'}"


def queue_order(history: History) -> Iterator[str]:
    """Messages of one thread stand in their mailbox in the order they were sent, without gaps."""
    for session, rows in history.dispatches_by_session().items():
        if (positions := [row.position for row in rows]) != list(range(1, len(rows) + 1)):
            yield f"{session} has positions {positions}"
    threads: dict[str, list[int]] = defaultdict(list)
    for delivery in history.deliveries:
        row = next((row for row in history.stored.dispatches if delivery.text in row.input.text), None)
        if row is not None:
            threads[delivery.thread].append(row.position)
    for thread, positions in threads.items():
        if positions != sorted(positions):
            yield f"thread {thread} was queued as {positions}"


def worked_in_order(history: History) -> Iterator[str]:
    """A session works one dispatch at a time, in queue order, and reads each input once."""
    for session, rows in history.dispatches_by_session().items():
        lines = history.stored.lines.get(session, ())
        inputs = [line.dispatch_id for line in lines if line.kind == "input"]
        started = [row.id for row in rows if row.id in inputs or row.status == "completed"]
        if inputs != started:
            yield f"{session} read its inputs as {inputs}, and its mailbox is {started}"
        places = {row.id: row.position for row in rows}
        order = [places.get(line.dispatch_id, 0) for line in lines]
        if order != sorted(order):
            yield f"{session} has lines of dispatches in the order {order}"
        for before, after in pairwise(rows):
            if before.settled_at and after.started_at and after.started_at < before.settled_at:
                yield f"{after.id} was started before {before.id} was settled"


def journal(history: History) -> Iterator[str]:
    """Journal numbers have no gaps, and no line was written under an older token than the line before it."""
    for row in history.stored.sessions:
        lines = history.stored.lines.get(row.id, ())
        if (numbers := [line.seq for line in lines]) != list(range(1, len(lines) + 1)):
            yield f"{row.id} has lines {numbers}"
        if row.head != len(lines):
            yield f"{row.id} has head {row.head} and {len(lines)} lines"
        for before, after in pairwise(lines):
            if after.token < before.token:
                yield f"{row.id} line {after.seq} was written under token {after.token}, after {before.token}"


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
    """Recorded answers are never asked for again: every call has one result, and the last answer ends the dispatch."""
    for row in history.stored.dispatches:
        open_calls: set[str] = set()
        for entry in _entries(history, row):
            if isinstance(entry, AnswerEntry):
                if open_calls:
                    yield f"{row.id} went on without results of {sorted(open_calls)}"
                open_calls = {call.id for call in entry.as_answer().tool_calls}
            elif isinstance(entry, ToolResultEntry):
                if entry.call_id not in open_calls:
                    yield f"{row.id} has a second or stray result of {entry.call_id}"
                open_calls.discard(entry.call_id)
        if row.settled_at and open_calls:
            yield f"{row.id} ended without results of {sorted(open_calls)}"


def model_history(history: History) -> Iterator[str]:
    """Every request to the model is valid: roles alternate and each tool use is answered by the next message."""
    for number, raw in enumerate(history.requests, 1):
        messages = msgspec.json.decode(raw, type=_Request).messages
        roles = [message.role for message in messages]
        if roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or roles[-1:] != ["user"]:
            yield f"request {number} has the roles {roles}"
        asked: set[str] = set()
        for message in messages:
            blocks = message.blocks
            answered = [block.tool_use_id for block in blocks if block.type == "tool_result"]
            if message.role == "user" and (len(answered) != len(set(answered)) or set(answered) != asked):
                yield f"request {number} answers {sorted(answered)} where {sorted(asked)} was asked"
            asked = {block.id for block in blocks if block.type == "tool_use"}


def seen_by_model(history: History) -> Iterator[str]:
    """The model was shown every accepted message, each once in a request, in queue order and nothing else before it."""
    orders = [
        [_said(history, row) for row in rows if _said(history, row)]
        for rows in history.dispatches_by_session().values()
    ]
    session_of = {text: order for order in orders for text in order}
    never = set(session_of)
    for number, raw in enumerate(history.requests, 1):
        said = _inputs(raw)
        texts = sorted((text for text in session_of if text in said), key=said.index)
        never.difference_update(texts)
        order = session_of[texts[-1]] if texts else []
        if texts != order[: len(texts)] or any(said.count(text) > 1 for text in texts):
            yield f"request {number} shows {texts}, and the mailbox is {order}"
    for text in sorted(never):
        yield f"the model was never shown {text!r}"


def replies(history: History) -> Iterator[str]:
    """Each completed dispatch's reply reached its platform whole, once for each key, in order."""
    keys: dict[str, list[str]] = defaultdict(list)
    for post in history.posted:
        keys[post.key].append(post.text)
    # The receiver of a standard reply drops a webhook-id that it has.
    doubled = [post for post in history.posted if post.duplicate and post.platform != "standard"]
    for post in doubled if len(doubled) > history.bounds.doubled_replies else ():
        yield f"{post.platform} has {post.key} twice"
    by_dispatch: Counter[str] = Counter()
    for item in history.stored.outbox:
        by_dispatch[item.dispatch_id] += 1
        if item.status == "sent" and not keys[item.idempotency_key]:
            yield f"{item.id} is marked sent and nobody has it"
        if any(text != item.body for text in keys[item.idempotency_key]):
            yield f"{item.id} was not posted as it was written"
    for row in history.stored.dispatches:
        wanted = row.input.reply is not None and row.input.reply.mode == "auto" and row.status == "completed"
        if wanted and row.result and row.result.text.strip() and not by_dispatch[row.id]:
            yield f"{row.id} has no reply"
    known = {item.idempotency_key for item in history.stored.outbox}
    for key in keys.keys() - known:
        yield f"{key} was posted, and no outbox row is its"


def reply_order(history: History) -> Iterator[str]:
    """The replies of one session reached their platform in order."""
    first: dict[str, int] = {}
    for place, post in enumerate(history.posted):
        first.setdefault(post.key, place)
    items = sorted(history.stored.outbox, key=lambda item: (item.session_id, item.position))
    for before, after in pairwise(items):
        one, two = first.get(before.idempotency_key), first.get(after.idempotency_key)
        if before.session_id == after.session_id and one is not None and two is not None and two < one:
            yield f"{after.id} was posted before {before.id}"


def effects(history: History) -> Iterator[str]:
    """A tool that is not safe to repeat had its effect at most once; a recorded success had one."""
    unsafe = Counter(effect.key for effect in history.effects if not effect.safe)
    for key, count in unsafe.items():
        if count > 1:
            yield f"{key} had its effect {count} times"
    happened = {effect.key for effect in history.effects}
    tools = {effect.tool for effect in history.effects}
    for row in history.stored.dispatches:
        results = [entry for entry in _entries(history, row) if isinstance(entry, ToolResultEntry)]
        done = [entry.call_id for entry in results if entry.outcome == "done" and entry.name in tools]
        for call_id in done:
            if f"{row.id}:{call_id}" not in happened:
                yield f"{row.id} records success of {call_id}, which had no effect"


def unknown_outcomes(history: History) -> Iterator[str]:
    """An unknown outcome stands only where the start was recorded under an older lease, in a run with a crash."""
    crashed = any(fault.crash for fault in history.faults)
    for row in history.stored.dispatches:
        started: dict[str, int] = {}
        for line in history.stored.lines.get(row.session_id, ()):
            entry = decode_entry(line.body) if line.dispatch_id == row.id else None
            if isinstance(entry, ToolStartedEntry):
                started[entry.call_id] = line.token
            elif isinstance(entry, ToolResultEntry) and entry.outcome == "unknown":
                lost = started.get(entry.call_id, line.token) < line.token
                if not (crashed and lost):
                    yield f"{row.id} records {entry.call_id} as unknown without a crash"


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
    """A run in which little succeeded proves nothing: operations outside faults succeed."""
    outside = [
        operation.succeeded
        for operation in history.operations
        if not any(fault.began <= operation.at <= fault.ended for fault in history.faults)
    ]
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
        replies,
        reply_order,
        effects,
        unknown_outcomes,
        nothing_left,
        liveness,
        not_vacuous,
    )
}
"""Every rule by name, in the order of the road."""


class _Block(Struct, frozen=True):
    type: str
    text: str = ""
    id: str = ""
    tool_use_id: str = ""


class _Message(Struct, frozen=True):
    role: str
    content: str | list[_Block]

    @property
    def blocks(self) -> list[_Block]:
        return [_Block("text", self.content)] if isinstance(self.content, str) else self.content


class _Request(Struct, frozen=True):
    messages: list[_Message]


def _inputs(raw: Raw) -> str:
    """Return what the users said in a request: tool results and answers may quote it."""
    messages = msgspec.json.decode(raw, type=_Request).messages
    said = [message for message in messages if message.role == "user"]
    return "\n".join(block.text for message in said for block in message.blocks if block.type == "text")


def _said(history: History, row: Dispatch) -> str:
    """Return the sender's unique text in a dispatch whose input was read."""
    if not any(isinstance(entry, InputEntry) for entry in _entries(history, row)):
        return ""
    return next((delivery.text for delivery in history.deliveries if delivery.text in row.input.text), "")


def _entries(history: History, row: Dispatch) -> list[Entry]:
    lines = history.stored.lines.get(row.session_id, ())
    return [decode_entry(line.body) for line in lines if line.dispatch_id == row.id]
