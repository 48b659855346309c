"""One conversation, one writer, in order; and nothing anybody stored can block what comes after it."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from pyflue.dispatches import Receipt
from pyflue.events import EntryQuarantined, decode_event
from pyflue.messages import TextPart, UserMessage
from pyflue.models.protocol import ModelFailure
from pyflue.registry import Registry
from pyflue.stores.memory import MemoryStore
from pyflue.testing.clock import FakeClock
from pyflue.testing.flow import Flow
from pyflue.testing.models import Held, ScriptedModel
from tests.session.agents import an_agent


def spoil(store: MemoryStore, session_id: str, seq: int, body: bytes) -> None:
    """Change the stored bytes of a journal line, as a failing disk or a newer release would."""
    [session] = [each for key, each in store.journal._tables.sessions.items() if key == session_id]
    session.lines[seq - 1] = msgspec.structs.replace(session.lines[seq - 1], body=body)


def texts(message: object) -> list[str]:
    assert isinstance(message, UserMessage)
    return [part.text for part in message.content if isinstance(part, TextPart)]


async def test_messages_of_one_session_are_answered_one_at_a_time_in_the_order_they_came() -> None:
    first = Held("one")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(first, "two", "three")) as flow:
        await flow.start_worker()
        receipts = [await flow.receive("standard", f"message {number}") for number in range(3)]
        await first.reached.wait()
        assert len(flow.model_calls) == 1
        first.release.set()
        rows = [await flow.outcome(receipt) for receipt in receipts]

        assert [row.position for row in rows] == [1, 2, 3]
        assert await flow.replies(count=3) == ["one", "two", "three"]


async def test_sessions_do_not_wait_for_each_other() -> None:
    held = Held("slow")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "quick")) as flow:
        slow = await flow.dispatch("go", thread="slow")
        await held.reached.wait()

        assert (await flow.outcome(await flow.dispatch("go", thread="quick"))).status == "completed"
        assert (await flow.row(slow)).status == "running"
        held.release.set()
        await flow.outcome(slow)


async def test_a_parked_head_holds_back_those_behind_it() -> None:
    busy = ModelFailure("overloaded", "model_overloaded", "Busy.", retry_after=timedelta(seconds=30))
    async with Flow({"agent": an_agent()}, model=ScriptedModel(busy, "one", "two")) as flow:
        first = await flow.dispatch("one")

        async def is_parked() -> bool:
            return (await flow.row(first)).available_at > flow.clock.now()

        await flow.until(is_parked)
        second = await flow.dispatch("two")
        await flow.pass_time(29)
        assert (await flow.row(second)).status == "queued"
        await flow.pass_time(1)
        rows = [await flow.outcome(first), await flow.outcome(second)]

        assert [row.result.text for row in rows if row.result is not None] == ["one", "two"]


async def test_the_same_delivery_is_admitted_once() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("once")) as flow:
        first = await flow.receive("standard", "hi", delivery_id="d-1")
        again = await flow.receive("standard", "hi", delivery_id="d-1")
        await flow.outcome(first)
        await flow.until_idle()

        assert (again.duplicate, again.dispatch_id) == (True, first.dispatch_id)
        assert await flow.replies() == ["once"]


async def test_an_agent_this_worker_does_not_have_is_left_to_others() -> None:
    async with Flow({"agent": an_agent(), "newer": an_agent()}, model=ScriptedModel("hello")) as flow:
        await flow.worker.stop()
        old = Registry()
        old.add("agent", an_agent())
        await flow.start_worker(registry=old)
        receipt = await flow.dispatch("hi", agent="newer")
        await flow.pass_time(60)
        assert (await flow.row(receipt)).status == "queued"

        await flow.start_worker()
        assert (await flow.outcome(receipt)).status == "completed"


async def test_an_agent_nobody_has_for_ten_minutes_fails_its_dispatches() -> None:
    async with Flow({"agent": an_agent(), "gone": an_agent()}) as flow:
        await flow.worker.stop()
        left = Registry()
        left.add("agent", an_agent())
        await flow.start_worker(registry=left)
        receipts = [await flow.dispatch("hi", agent="gone") for _ in range(2)]
        await flow.pass_time(595)
        assert (await flow.row(receipts[0])).status == "queued"
        await flow.pass_time(12)
        rows = [await flow.outcome(receipt) for receipt in receipts]

        assert [row.error.code for row in rows if row.error] == ["agent_unavailable"] * 2
        await flow.until_idle()


async def test_a_damaged_entry_is_left_out_and_reported_and_later_input_is_answered() -> None:
    store = MemoryStore(clock := FakeClock())
    async with Flow(
        {"agent": an_agent()}, model=ScriptedModel("one", "two", "three"), store=store, clock=clock
    ) as flow:
        first = await flow.outcome(await flow.dispatch("a question"))
        spoil(store, first.session_id, 1, b"\xff\x00 not an entry")
        second = await flow.outcome(await flow.dispatch("another"))

        assert second.status == "completed"
        events = [decode_event(event.data) for event in await flow.events(second.id)]
        assert EntryQuarantined(1) in events
        assert "could not be read" in texts(flow.model_calls[1].messages[0])[0]
        assert (await flow.outcome(await flow.dispatch("a third"))).status == "completed"


async def test_an_entry_of_a_newer_release_leaves_the_session_to_that_release() -> None:
    store = MemoryStore(clock := FakeClock())
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one", "two"), store=store, clock=clock) as flow:
        first = await flow.outcome(await flow.dispatch("a question"))
        before = (await store.journal.load(first.session_id))[1].body
        spoil(store, first.session_id, 2, b'{"kind":"telepathy","thought":1}')
        second = await flow.dispatch("another")
        await flow.until(lambda: is_put_back(flow, second))

        row = await flow.row(second)
        assert (row.status, row.attempts) == ("queued", 0)
        assert (await flow.events(second))[-1].type == "dispatch.parked"
        await flow.until(lambda: nobody_holds_anything(flow))
        spoil(store, first.session_id, 2, before)  # as if a worker of the newer release had it now
        await flow.pass_time(31)
        assert (await flow.outcome(second)).status == "completed"


async def test_aborting_in_such_a_session_does_not_spin() -> None:
    store = MemoryStore(clock := FakeClock())
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one"), store=store, clock=clock) as flow:
        first = await flow.outcome(await flow.dispatch("a question"))
        spoil(store, first.session_id, 2, b'{"kind":"telepathy"}')
        second = await flow.dispatch("another")
        await flow.until(lambda: is_put_back(flow, second))
        await store.ledger.request_abort(second.dispatch_id)
        flow.worker.worker.wake(first.session_id)
        await flow.until(lambda: is_put_back(flow, second))
        await flow.until(lambda: nobody_holds_anything(flow))

        parked = [event for event in await flow.events(second) if event.type == "dispatch.parked"]
        assert len(parked) <= 3


async def is_put_back(flow: Flow, receipt: Receipt) -> bool:
    return (await flow.row(receipt)).available_at > flow.clock.now()


async def nobody_holds_anything(flow: Flow) -> bool:
    return not any(worker.sessions for worker in await flow.store.views.workers())


async def test_a_bug_of_ours_costs_an_attempt_and_is_tried_again() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel(then="fine")) as flow:
        flow.worker.faults.fail("ledger.settle", KeyError("a bug"))
        receipt = await flow.dispatch("go")
        await flow.until(lambda: is_put_back(flow, receipt))
        await flow.pass_time(3)

        assert (await flow.outcome(receipt)).status == "completed"
        assert "dispatch.parked" in [event.type for event in await flow.events(receipt)]
