"""How many mailboxes at once: fair, never lost to a cancellation; and wake-ups while all are taken."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from pyflue.config import Settings
from pyflue.mailbox.gate import Gate
from pyflue.mailbox.slots import Slots
from pyflue.testing.flow import FAST, Flow
from pyflue.testing.models import Held, ScriptedModel
from tests.session.agents import an_agent


async def test_those_who_wait_get_a_slot_in_the_order_they_came() -> None:
    slots, got = Slots(1), []
    assert slots.take()

    async def want(name: str) -> None:
        await slots.wait()
        got.append(name)

    waiting = [asyncio.create_task(want(name)) for name in ("one", "two")]
    await asyncio.sleep(0)
    assert not slots.take()
    slots.give_back()
    await waiting[0]
    assert not slots.take()
    slots.give_back()
    await waiting[1]

    assert got == ["one", "two"]


async def test_nobody_overtakes_those_who_wait() -> None:
    slots = Slots(1)
    slots.take()
    waiting = asyncio.create_task(slots.wait())
    await asyncio.sleep(0)
    slots.give_back()

    assert not slots.take()
    await waiting


async def test_a_slot_given_to_somebody_who_was_cancelled_is_not_lost() -> None:
    slots = Slots(1)
    slots.take()
    waiting = asyncio.create_task(slots.wait())
    await asyncio.sleep(0)
    slots.give_back()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert slots.free == 1
    assert slots.take()


async def test_a_slot_given_back_right_after_a_cancellation_is_not_lost_either() -> None:
    slots = Slots(1)
    slots.take()
    waiting = asyncio.create_task(slots.wait())
    await asyncio.sleep(0)
    waiting.cancel()
    slots.give_back()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert slots.free == 1


async def test_an_overdrawn_counter_gives_nothing_out_before_it_is_even_again() -> None:
    slots = Slots(1)
    slots.take()
    slots.overdraw()
    assert slots.free == 0
    slots.give_back()
    assert not slots.take()
    slots.give_back()
    assert slots.take()


async def test_a_wake_up_that_finds_every_slot_taken_is_remembered() -> None:
    """The rescue loop is too slow here to be what helps."""
    first = Held("one")
    settings = Settings(worker=replace(FAST, turns=1, rescue=60.0))
    async with Flow({"agent": an_agent()}, model=ScriptedModel(first, "two"), settings=settings) as flow:
        await flow.dispatch("go", thread="a")
        await first.reached.wait()
        waiting = await flow.dispatch("go", thread="b")
        first.release.set()

        assert (await flow.outcome(waiting)).status == "completed"


async def test_accepting_waits_for_a_slot_and_returns_when_the_work_has_begun() -> None:
    first, second = Held("one"), Held("two")
    settings = Settings(worker=replace(FAST, turns=1, rescue=60.0))
    async with Flow({"agent": an_agent()}, model=ScriptedModel(first, second), settings=settings) as flow:
        await flow.dispatch("go", thread="a")
        await first.reached.wait()
        flow.bell.wake = None
        receipt = await flow.dispatch("go", thread="b")
        accepting = asyncio.create_task(flow.worker.worker.accept((await flow.row(receipt)).session_id))
        await asyncio.sleep(0)
        assert not accepting.done()
        first.release.set()
        await accepting
        assert (await flow.row(receipt)).status != "completed"
        second.release.set()

        assert (await flow.outcome(receipt)).status == "completed"


async def test_no_more_turns_run_at_once_than_there_are_slots() -> None:
    settings = Settings(worker=replace(FAST, turns=3))
    helds = [Held("x") for _ in range(8)]
    async with Flow({"agent": an_agent()}, model=ScriptedModel(*helds), settings=settings) as flow:
        receipts = [await flow.dispatch("go", thread=str(number)) for number in range(8)]
        await flow.until(lambda: len(flow.model_calls) == 3)
        rounds = flow.worker.faults.calls["fleet.reap"]
        await flow.until(lambda: flow.worker.faults.calls["fleet.reap"] > rounds + 3)
        assert len(flow.model_calls) == 3
        for held in helds:
            held.release.set()

        assert {(await flow.outcome(receipt)).status for receipt in receipts} == {"completed"}


async def test_the_gate_lets_many_take_at_once_and_one_alone() -> None:
    gate, order = Gate(), []
    release = asyncio.Event()

    async def take() -> None:
        async with gate.taking():
            order.append("taking")
            await release.wait()

    async def alone() -> None:
        async with gate.alone():
            order.append("alone")

    takers = [asyncio.create_task(take()) for _ in range(2)]
    await asyncio.sleep(0)
    last = asyncio.create_task(alone())
    await asyncio.sleep(0)
    late = asyncio.create_task(take())
    await asyncio.sleep(0)
    assert order == ["taking", "taking"]
    release.set()
    await asyncio.gather(*takers, last, late)

    assert order == ["taking", "taking", "alone", "taking"]


async def test_whoever_wants_to_be_alone_gives_up_when_a_claim_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyflue.mailbox.gate.ALONE_WITHIN", 0.02)
    gate = Gate()
    async with gate.taking():
        with pytest.raises(TimeoutError):
            async with gate.alone():
                pytest.fail("somebody is taking")
        async with asyncio.timeout(1), gate.taking():
            pass
