"""The history checker finds every kind of breach: a good history is spoilt in one place and must be refused for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from pyflue.dispatches import Dispatch, DispatchInput, DispatchResult, OutboxItem, ReplyAddress, SessionAddress
from pyflue.entries import (
    AnswerEntry,
    Entry,
    InputEntry,
    JournalLine,
    ToolResultEntry,
    ToolStartedEntry,
    decode_entry,
    encode_entry,
    kind_of_entry,
)
from pyflue.events import (
    DispatchAccepted,
    DispatchSettled,
    DispatchStarted,
    Event,
    ReplySent,
    StoredEvent,
    encode_event,
    type_of,
)
from pyflue.ids import DispatchId, OutboxId, WorkerId
from pyflue.messages import TextPart, ToolUsePart
from pyflue.stores.protocol import SessionRow, StoredLine
from pyflue.testing.history import RULES, check
from pyflue.testing.posted import Posted
from pyflue.testing.recorded import Bounds, Delivery, Effect, Fault, History, Operation, Stored, calls_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ADDRESS = SessionAddress("clerk", "thread-1")
OTHER = SessionAddress("clerk", "thread-2")
FIRST, SECOND = DispatchId("dsp_1"), DispatchId("dsp_2")


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def dispatch(id: DispatchId, position: int, text: str) -> Dispatch:
    reply = ReplyAddress("github", Raw(b"{}"))
    return Dispatch(
        id=id,
        session_id=ADDRESS.id,
        position=position,
        input=DispatchInput(f"{text} please", "signal", reply=reply),
        status="completed",
        attempts=1,
        accepted_at=at(position),
        available_at=at(position),
        started_at=at(10 * position),
        settled_at=at(10 * position + 5),
        result=DispatchResult(f"answer to {text}"),
        event_seq=4,
    )


def lines() -> tuple[StoredLine, ...]:
    call = ToolUsePart("call-1", "pay", Raw(b"{}"))
    written: list[tuple[DispatchId, Entry]] = [
        (FIRST, InputEntry("m-1 please")),
        (FIRST, AnswerEntry((call,), "tool_use", "fake")),
        (FIRST, ToolStartedEntry("call-1", "pay")),
        (FIRST, ToolResultEntry("call-1", "pay", "paid")),
        (FIRST, AnswerEntry((TextPart("answer to m-1"),), "end_turn", "fake")),
        (SECOND, InputEntry("m-2 please")),
        (SECOND, AnswerEntry((TextPart("answer to m-2"),), "end_turn", "fake")),
    ]
    return tuple(
        StoredLine(seq, id, kind_of_entry(entry), encode_entry(entry), at(seq), token=1 if id == FIRST else 2)
        for seq, (id, entry) in enumerate(written, 1)
    )


def events(position: int) -> tuple[StoredEvent, ...]:
    told: tuple[Event, ...] = (
        DispatchAccepted("github"),
        DispatchStarted(1, "wrk_1"),
        DispatchSettled("completed"),
        ReplySent(f"out_{position}", "github", 0, f"id-{position}", 1),
    )
    return tuple(
        StoredEvent(f"dsp_{position}", seq, type_of(event), Raw(encode_event(event)), at(10 * position + 5))
        for seq, event in enumerate(told, 1)
    )


def item(position: int) -> OutboxItem:
    return OutboxItem(
        id=OutboxId(f"out_{position}"),
        session_id=ADDRESS.id,
        position=position,
        dispatch_id=DispatchId(f"dsp_{position}"),
        call_id="",
        part=0,
        channel="github",
        destination=Raw(b"{}"),
        body=f"answer to m-{position}",
        idempotency_key=f"dsp_{position}-0",
        status="sent",
        attempts=1,
        available_at=at(0),
        created_at=at(0),
        receipt=f"id-{position}",
    )


def posted(position: int) -> Posted:
    return Posted("github", f"id-{position}", "octo/demo#1", f"answer to m-{position}", f"dsp_{position}-0", 0.0)


def request(*messages: dict[str, object]) -> Raw:
    return Raw(json.dumps({"model": "fake", "messages": messages}).encode())


ANSWERED_AND_ASKED = {
    "role": "user",
    "content": [
        {"type": "tool_result", "tool_use_id": "call-1", "content": "paid"},
        {"type": "text", "text": "m-2 please"},
    ],
}
ANSWERED_OTHERWISE = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "call-1", "content": "not paid"}],
}
ASKED = {"role": "user", "content": "m-1 please"}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "call-1", "name": "pay", "input": {}}]}
ANSWERED = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call-1", "content": "paid"}]}
SAID = {"role": "assistant", "content": "answer to m-1"}
ASKED_AGAIN = {"role": "user", "content": "m-2 please"}


def good() -> History:
    """A run of one thread with two messages, one tool call and a killed worker, in which every promise was kept."""
    session = SessionRow(ADDRESS.id, ADDRESS, head=7, mailbox_head=2, unsettled=0, created_at=at(0), updated_at=at(30))
    return History(
        deliveries=(
            Delivery("m-1", "octo/demo#1", accepted=True, dispatch_ids=(FIRST,)),
            Delivery("m-2", "octo/demo#1", accepted=True),
        ),
        stored=Stored(
            dispatches=(dispatch(FIRST, 1, "m-1"), dispatch(SECOND, 2, "m-2")),
            sessions=(session,),
            lines={ADDRESS.id: lines()},
            events={FIRST: events(1), SECOND: events(2)},
            outbox=(item(1), item(2)),
        ),
        requests=(
            request(ASKED),
            request(ASKED, CALLED, ANSWERED),
            request(ASKED, CALLED, ANSWERED, SAID, ASKED_AGAIN),
        ),
        posted=(posted(1), posted(2)),
        effects=(Effect(f"{FIRST}:call-1", "pay", safe=False),),
        operations=tuple(Operation(at(seconds).timestamp(), succeeded=True) for seconds in range(10)),
        faults=(Fault("a worker was killed", at(3).timestamp(), at(4).timestamp()),),
        bounds=Bounds(settle_within=60),
    )


Spoil = Callable[[History], History]


def stored(history: History, **changes: object) -> History:
    return replace(history, stored=replace(history.stored, **changes))


def row(history: History, place: int, **changes: object) -> History:
    rows = list(history.stored.dispatches)
    rows[place] = replace(rows[place], **changes)
    return stored(history, dispatches=tuple(rows))


def session(history: History, **changes: object) -> History:
    return stored(history, sessions=(replace(history.stored.sessions[0], **changes),))


def line(history: History, number: int, entry: Entry | None = None, **changes: object) -> History:
    changed = list(history.stored.lines[ADDRESS.id])
    if entry is not None:
        changes |= {"kind": kind_of_entry(entry), "body": encode_entry(entry)}
    changed[number - 1] = replace(changed[number - 1], **changes)
    return stored(history, lines={ADDRESS.id: tuple(changed)})


def outbox(history: History, **changes: object) -> History:
    return stored(history, outbox=(replace(item(1), **changes), item(2)))


def with_line(history: History, added: StoredLine) -> History:
    written = history.stored.lines[ADDRESS.id]
    numbered = (*written, replace(added, seq=len(written) + 1))
    return session(stored(history, lines={ADDRESS.id: numbered}), head=len(numbered))


def without_line(history: History, seq: int) -> History:
    kept = [one for one in history.stored.lines[ADDRESS.id] if one.seq != seq]
    renumbered = tuple(replace(one, seq=number) for number, one in enumerate(kept, 1))
    return session(stored(history, lines={ADDRESS.id: renumbered}), head=len(kept))


def event(history: History, place: int, told: Event) -> History:
    changed = list(events(1))
    changed[place] = replace(changed[place], type=type_of(told), data=Raw(encode_event(told)))
    return stored(history, events={FIRST: tuple(changed), SECOND: events(2)})


def kept(history: History) -> History:
    """Move the conversation to a store of its agent's own, where the main database has the inputs alone."""
    written = history.stored.lines[ADDRESS.id]
    own = tuple([JournalLine(one.seq, one.dispatch_id, decode_entry(one.body)) for one in written])
    inputs = [one for one in written if one.kind == "input"]
    left = tuple(replace(one, seq=number) for number, one in enumerate(inputs, 1))
    moved = stored(history, lines={ADDRESS.id: left}, kept={ADDRESS.id: own})
    return session(moved, head=len(left))


def kept_line(history: History, number: int, **changes: object) -> History:
    own = list(history.stored.kept[ADDRESS.id])
    own[number - 1] = replace(own[number - 1], **changes)
    return stored(history, kept={ADDRESS.id: tuple(own)})


def replied(history: History, text: str = "It is paid.") -> History:
    """Have the first dispatch's call be one of the ``reply`` tool, and the reply its only one."""
    call = ToolUsePart("call-1", "reply", Raw(json.dumps({"text": text}).encode()))
    said = line(history, 2, AnswerEntry((call,), "tool_use", "fake"))
    said = without_line(line(said, 4, ToolResultEntry("call-1", "reply", "Queued for delivery.")), 3)
    asked = replace(said.stored.dispatches[0].input, reply=ReplyAddress("github", Raw(b"{}"), "tool"))
    item_of_call = replace(item(1), call_id="call-1", idempotency_key="dsp_1-call-1-0", body="It is paid.")
    posted_by_call = replace(posted(1), key="dsp_1-call-1-0", text="It is paid.")
    changed = stored(row(said, 0, input=asked), outbox=(item_of_call, item(2)))
    return replace(changed, posted=(posted_by_call, posted(2)), effects=())


UNKNOWN = ToolResultEntry("call-1", "pay", "?", "unknown")

SPOILT: dict[str, tuple[str, Spoil]] = {
    "an accepted message is gone": (
        "accepted_once",
        lambda h: replace(h, deliveries=(*h.deliveries, Delivery("m-3", "t", accepted=True))),
    ),
    "a message was admitted twice": ("accepted_once", lambda h: row(h, 1, input=h.stored.dispatches[0].input)),
    "a refused message was admitted": (
        "accepted_once",
        lambda h: replace(h, deliveries=(h.deliveries[0], replace(h.deliveries[1], accepted=False, refused=True))),
    ),
    "a dispatch nobody sent": ("accepted_once", lambda h: replace(h, deliveries=h.deliveries[:1])),
    "a receipt of another dispatch": (
        "accepted_once",
        lambda h: replace(h, deliveries=(replace(h.deliveries[0], dispatch_ids=("dsp_9",)), h.deliveries[1])),
    ),
    "a dispatch never settled": ("settled", lambda h: row(h, 1, status="running", settled_at=None)),
    "settled twice": ("settled", lambda h: event(h, 3, DispatchSettled("completed"))),
    "settled without its event": ("settled", lambda h: event(h, 2, DispatchStarted(2, "wrk_1"))),
    "settled as something else than its row says": ("settled", lambda h: event(h, 2, DispatchSettled("failed"))),
    "a dispatch failed": ("completed", lambda h: row(h, 1, status="failed")),
    "a gap in the mailbox": ("queue_order", lambda h: row(h, 1, position=3)),
    "queued in another order than sent": ("queue_order", lambda h: replace(h, deliveries=h.deliveries[::-1])),
    "two threads in one mailbox": (
        "queue_order",
        lambda h: replace(h, deliveries=(h.deliveries[0], replace(h.deliveries[1], thread="octo/demo#2"))),
    ),
    "one thread in two mailboxes": ("queue_order", lambda h: row(h, 1, session_id=OTHER.id, position=1)),
    "an input that is not what was sent": ("worked_in_order", lambda h: line(h, 6, InputEntry("m-2"))),
    "an input read twice": ("worked_in_order", lambda h: line(h, 2, InputEntry("m-1 please"))),
    "an input never read": ("worked_in_order", lambda h: without_line(h, 6)),
    "a line of an earlier dispatch": ("worked_in_order", lambda h: line(h, 7, dispatch_id=FIRST)),
    "two dispatches at once": ("worked_in_order", lambda h: row(h, 1, started_at=at(12))),
    "a gap in the journal": ("journal", lambda h: line(h, 7, seq=8)),
    "a head that is not the last line": ("journal", lambda h: session(h, head=6)),
    "a line under a stale token": ("journal", lambda h: line(h, 7, token=1)),
    "a gap in the events": ("event_numbers", lambda h: row(h, 0, event_seq=5)),
    "an event before the admission": ("event_numbers", lambda h: event(h, 0, DispatchStarted(1, "wrk_1"))),
    "work after the settlement": ("event_numbers", lambda h: event(h, 3, DispatchStarted(2, "wrk_2"))),
    "an attempt spent": (
        "attempts",
        lambda h: replace(event(h, 1, DispatchStarted(2, "wrk_2")), bounds=Bounds(attempts=1)),
    ),
    "a call without a result": ("answers_recorded", lambda h: without_line(h, 4)),
    "a result recorded twice": ("answers_recorded", lambda h: line(h, 3, ToolResultEntry("call-1", "pay", "paid"))),
    "a second final answer": ("answers_recorded", lambda h: with_line(h, h.stored.lines[ADDRESS.id][6])),
    "completed without an answer": ("answers_recorded", lambda h: without_line(h, 7)),
    "a result that is not the answer": ("answers_recorded", lambda h: row(h, 0, result=DispatchResult("answer"))),
    "a tool use left open in a request": (
        "model_history",
        lambda h: replace(h, requests=(*h.requests, request(ASKED, CALLED, ASKED_AGAIN))),
    ),
    "a result nobody asked for": (
        "model_history",
        lambda h: replace(h, requests=(*h.requests, request(ASKED, SAID, ANSWERED))),
    ),
    "two user messages in a row": (
        "model_history",
        lambda h: replace(h, requests=(*h.requests, request(ASKED, ASKED_AGAIN))),
    ),
    "a message the model never saw": ("seen_by_model", lambda h: replace(h, requests=h.requests[:2])),
    "a message shown before an earlier one": (
        "seen_by_model",
        lambda h: replace(h, requests=(*h.requests, request(ASKED_AGAIN))),
    ),
    "a message shown twice": (
        "seen_by_model",
        lambda h: replace(h, requests=(*h.requests, request(ASKED, SAID, ASKED))),
    ),
    "a message shown that was never read": (
        "seen_by_model",
        lambda h: replace(
            h,
            deliveries=(*h.deliveries, Delivery("m-3", "octo/demo#1", accepted=False)),
            requests=(*h.requests, request({"role": "user", "content": "m-3 please"})),
        ),
    ),
    "a recorded result shown as another": (
        "shown_unchanged",
        lambda h: replace(h, requests=(h.requests[0], request(ASKED, CALLED, ANSWERED_OTHERWISE), h.requests[2])),
    ),
    "a recorded answer left out": (
        "answers_shown",
        lambda h: replace(h, requests=(*h.requests[:2], request(ASKED, CALLED, ANSWERED_AND_ASKED))),
    ),
    "a recorded answer asked for again": (
        "asked_again",
        lambda h: replace(h, requests=(*h.requests, request(ASKED, CALLED, ANSWERED))),
    ),
    "a reply posted twice": (
        "replies",
        lambda h: replace(h, posted=(*h.posted, replace(posted(1), id="id-9"))),
    ),
    "a reply marked sent that nobody has": ("replies", lambda h: replace(h, posted=h.posted[1:])),
    "a reply cut short": ("replies", lambda h: replace(h, posted=(replace(posted(1), text="answer"), posted(2)))),
    "a completed dispatch without a reply": ("replies_whole", lambda h: stored(h, outbox=(item(2),))),
    "a reply queued cut short": ("replies_whole", lambda h: outbox(h, body="answer")),
    "a part of a reply missing": ("replies_whole", lambda h: outbox(h, part=1)),
    "a reply queued twice": (
        "replies_whole",
        lambda h: stored(h, outbox=(item(1), item(2), replace(item(1), position=3, part=1))),
    ),
    "a reply in another thread": (
        "reply_place",
        lambda h: replace(h, posted=(replace(posted(1), thread="octo/demo#2"), posted(2))),
    ),
    "a reply on another platform": (
        "reply_place",
        lambda h: replace(h, posted=(replace(posted(1), platform="slack"), posted(2))),
    ),
    "a reply marked sent under an id nobody gave": ("replies_recorded", lambda h: outbox(h, receipt="id-9")),
    "a reply marked sent twice": (
        "replies_recorded",
        lambda h: event(h, 2, ReplySent("out_1", "github", 0, "id-1", 1)),
    ),
    "a reply out of nowhere": (
        "replies",
        lambda h: replace(h, posted=(*h.posted, replace(posted(1), key="dsp_9-0"))),
    ),
    "replies in the wrong order": ("reply_order", lambda h: replace(h, posted=h.posted[::-1])),
    "replies queued in another order than their messages": (
        "reply_order",
        lambda h: stored(h, outbox=(replace(item(1), position=2), replace(item(2), position=1))),
    ),
    "an effect before its start was recorded": ("effects", lambda h: without_line(h, 3)),
    "an effect of a call nobody recorded": (
        "effects",
        lambda h: replace(h, effects=(*h.effects, Effect(f"{FIRST}:call-2", "look", safe=True))),
    ),
    "an unsafe effect twice": ("effects", lambda h: replace(h, effects=h.effects * 2)),
    "a recorded step done again": (
        "effects",
        lambda h: replace(h, effects=tuple(Effect(f"{FIRST}:call-1", "pay", True, end) for end in ("aid", "again"))),
    ),
    "a success without its effect": (
        "effects",
        lambda h: replace(h, effects=(Effect("dsp_2:call-9", "pay", safe=False),)),
    ),
    "an unknown outcome under the same lease": ("unknown_outcomes", lambda h: line(h, 4, UNKNOWN)),
    "an unknown outcome without a crash": (
        "unknown_outcomes",
        lambda h: replace(line(line(h, 4, UNKNOWN), 3, token=0), faults=()),
    ),
    "a lease left behind": ("nothing_left", lambda h: session(h, lease_owner=WorkerId("wrk_1"))),
    "a mailbox still due": ("nothing_left", lambda h: session(h, due_at=at(1))),
    "a reply still being sent": ("nothing_left", lambda h: outbox(h, status="sending")),
    "a reply given up": ("nothing_left", lambda h: outbox(h, status="undeliverable")),
    "settled too late": ("liveness", lambda h: replace(h, bounds=Bounds(settle_within=5))),
    "too much failed outside faults": (
        "not_vacuous",
        lambda h: replace(h, operations=tuple(replace(one, succeeded=False) for one in h.operations)),
    ),
    "something failed in a fault that must not be felt": (
        "not_vacuous",
        lambda h: replace(
            h,
            operations=(*h.operations, Operation(at(3.5).timestamp(), succeeded=False)),
            faults=(replace(h.faults[0], refusing=False),),
        ),
    ),
    "a fault that met no work": (
        "not_vacuous",
        lambda h: replace(h, faults=(*h.faults, Fault("too late", at(40).timestamp(), at(41).timestamp()))),
    ),
    "no operation outside a fault": ("not_vacuous", lambda h: replace(h, operations=h.operations[3:5])),
    "a gap in an agent's own store": ("journal", lambda h: kept_line(kept(h), 7, seq=8)),
    "an answer in both stores": ("journal", lambda h: stored(kept(h), lines=h.stored.lines)),
    "an input that an agent's own store never had": (
        "worked_in_order",
        lambda h: stored(kept(h), kept=kept(without_line(h, 6)).stored.kept),
    ),
    "an input in an agent's own store alone": (
        "worked_in_order",
        lambda h: stored(kept(h), lines={ADDRESS.id: kept(h).stored.lines[ADDRESS.id][:1]}),
    ),
    "an answer that only the main database has": ("answers_recorded", lambda h: kept(without_line(h, 7))),
    "a start that an agent's own store never had": ("effects", lambda h: kept(without_line(h, 3))),
    "an unknown outcome of a dispatch begun once": ("unknown_outcomes", lambda h: kept(line(h, 4, UNKNOWN))),
    "a reply of the reply tool missing": ("replies_whole", lambda h: stored(replied(h), outbox=(item(2),))),
    "a reply of the reply tool cut short": ("replies_whole", lambda h: replied(h, "It is paid, and shipped.")),
    "a reply of the reply tool queued twice": (
        "replies_whole",
        lambda h: stored(replied(h), outbox=(*replied(h).stored.outbox, replied(h).stored.outbox[0])),
    ),
    "a reply of a call that was not recorded": ("replies_whole", lambda h: without_line(replied(h), 3)),
    "nothing was sent": ("not_vacuous", lambda h: replace(h, deliveries=())),
}


def test_a_good_history_is_accepted() -> None:
    assert check(good()) == []


@pytest.mark.parametrize(("rule", "spoil"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_history_is_refused_for_what_is_wrong_with_it(rule: str, spoil: Spoil) -> None:
    broken = check(spoil(good()))

    assert rule in {violation.rule for violation in broken}
    assert all(violation.found for violation in broken)


def test_every_rule_is_broken_by_some_spoilt_history() -> None:
    assert set(RULES) == {rule for rule, _ in SPOILT.values()}


def test_an_unknown_outcome_after_a_crash_is_accepted() -> None:
    history = line(line(good(), 4, UNKNOWN, token=2), 5, token=2)

    assert check(history) == []


def test_a_conversation_in_an_agents_own_store_is_accepted() -> None:
    assert check(kept(good())) == []


def test_an_unknown_outcome_there_is_accepted_of_a_dispatch_that_was_begun_again() -> None:
    accepted, begun, *rest = events(1)
    again = replace(begun, data=Raw(encode_event(DispatchStarted(2, "wrk_2"))))
    told = tuple(replace(one, seq=seq) for seq, one in enumerate((accepted, begun, again, *rest), 1))
    history = row(line(good(), 4, UNKNOWN), 0, event_seq=5)

    assert check(kept(stored(history, events={FIRST: told, SECOND: events(2)}))) == []


def test_a_reply_of_the_reply_tool_is_accepted() -> None:
    assert check(replied(good())) == []


def test_a_call_id_used_again_is_another_call() -> None:
    answer = AnswerEntry((ToolUsePart("call-1", "pay", Raw(b"{}")),), "tool_use", "fake")
    started, result = ToolStartedEntry("call-1", "pay"), ToolResultEntry("call-1", "pay", "paid")
    found = calls_of([answer, started, result, answer, ToolResultEntry("call-9", "pay", "stray")])

    assert [(one.key, one.started, one.result) for one in found] == [
        ("call-1", True, result),
        ("call-1.2", False, None),
    ]


def test_a_standard_receiver_may_get_a_webhook_id_twice() -> None:
    twice = [replace(post, platform="standard", duplicate=again) for again in (False, True) for post in good().posted]

    history = stored(good(), outbox=(replace(item(1), channel="standard"), replace(item(2), channel="standard")))
    assert check(replace(history, posted=tuple(twice))) == []


def test_a_run_with_a_frozen_process_may_allow_a_reply_to_be_there_twice() -> None:
    twice = replace(good(), posted=(*good().posted, replace(posted(1), duplicate=True)))

    assert check(replace(twice, bounds=Bounds(doubled_replies=1))) == []
    assert check(twice) != []


def test_a_run_with_a_frozen_process_may_allow_an_answer_to_be_asked_for_again() -> None:
    again = replace(good(), requests=(*good().requests, good().requests[1]))

    assert check(replace(again, bounds=Bounds(asked_again=1))) == []
    assert check(again) != []


def test_a_reply_in_parts_is_whole_with_the_fences_that_cutting_it_adds() -> None:
    answer = "```py\none\ntwo\n```"
    first, second = replace(item(2), body="```py\none\n```"), replace(item(2), body="```py\ntwo\n```")
    second = replace(second, id=OutboxId("out_3"), part=1, position=3, idempotency_key="dsp_2-1", receipt="id-3")
    parts = (
        posted(1),
        replace(posted(2), text=first.body),
        replace(posted(2), text=second.body, key="dsp_2-1", id="id-3"),
    )
    said = line(good(), 7, AnswerEntry((TextPart(answer),), "end_turn", "fake"))
    sent = replace(events(2)[3], seq=5, data=Raw(encode_event(ReplySent("out_3", "github", 1, "id-3", 1))))
    told = {FIRST: events(1), SECOND: (*events(2), sent)}
    history = row(
        stored(said, outbox=(item(1), first, second), events=told), 1, result=DispatchResult(answer), event_seq=5
    )

    assert check(replace(history, posted=parts)) == []


def test_a_violation_names_its_rule_and_what_was_found() -> None:
    (violation,) = check(session(good(), head=6))

    assert str(violation).startswith("journal: ses_")
    assert msgspec.json.encode(violation)
