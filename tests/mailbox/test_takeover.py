"""Losing a process, losing the store, and coming back: nothing is doubled, nothing is lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from pyflue.config import RetrySettings, Settings
from pyflue.dispatches import Receipt
from pyflue.errors import CommitUnknownError, StoreUnavailableError
from pyflue.mailbox.deliver import deliver
from pyflue.models.protocol import ModelFailure
from pyflue.session.liveness import Liveness
from pyflue.testing.clock import FakeClock
from pyflue.testing.faults import When
from pyflue.testing.flow import FAST, Flow
from pyflue.testing.models import Held, ScriptedModel, calls
from pyflue.testing.posted import Failure
from tests.session.agents import Bench, an_agent, kinds, results

CALLS = (
    "ledger.claim",
    "ledger.mailbox",
    "ledger.begin",
    "journal.append.answer",
    "journal.append.tool_started",
    "journal.append.tool_result",
    "ledger.settle",
    "ledger.release",
    "outbox.sent",
)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_store_that_breaks_off_in_the_middle_of_a_turn_doubles_and_loses_nothing(call: str, when: When) -> None:
    bench = Bench()
    bench.let_go.set()
    model = ScriptedModel(calls(("work", {})), "done", calls(("work", {})), "done again")
    async with Flow({"agent": an_agent(bench.tool)}, model=model) as flow:
        flow.worker.faults.fail(call, CommitUnknownError("connection lost"), when=when)
        first = await flow.receive("standard", "go")
        second = await flow.receive("standard", "and again")
        rows = [await flow.outcome(first), await flow.outcome(second)]
        replies = await flow.replies(count=2)
        await flow.until_idle()

        assert [row.status for row in rows] == ["completed", "completed"]
        assert replies == ["done", "done again"]
        assert bench.began == 2
        assert kinds(await flow.journal(first)) == ["input", "answer", "tool_started", "tool_result", "answer"] * 2
        assert len(flow.model_calls) == 4


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["ledger.begin", "ledger.park"])
async def test_an_attempt_counts_once_even_if_a_write_without_entries_breaks_off(call: str, when: When) -> None:
    cut = ModelFailure("transient", "model_answer_cut", "The answer was cut.")
    settings = Settings(worker=FAST, retry=RetrySettings(first_delay=1.0, longest_delay=1.0))
    async with Flow({"agent": an_agent()}, model=ScriptedModel(cut, cut, "done"), settings=settings) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(lambda: _has_status(flow, receipt, "queued", attempts=1))
        flow.worker.faults.fail(call, CommitUnknownError("connection lost"), when=when)
        await flow.pass_time(1)
        await flow.until(lambda: _has_status(flow, receipt, "queued", attempts=2))
        await flow.pass_time(1)

        assert (await flow.outcome(receipt)).attempts == 3
        told = [event.type for event in await flow.events(receipt)]
        assert told.count("dispatch.started") == 3
        assert told.count("dispatch.parked") == 2


async def _has_status(flow: Flow, receipt: Receipt, status: str, *, attempts: int) -> bool:
    row = await flow.row(receipt)
    return (row.status, row.attempts) == (status, attempts) and row.available_at > flow.clock.now()


async def test_a_store_that_is_away_for_a_while_is_waited_for_and_the_turn_goes_on() -> None:
    bench = Bench()
    async with Flow({"agent": an_agent(bench.tool)}, model=ScriptedModel(calls(("work", {})), "done")) as flow:
        receipt = await flow.dispatch("go")
        await bench.reached.wait()
        flow.worker.faults.go_away()
        bench.let_go.set()
        await flow.until(lambda: bench.finished == 1)
        tries = flow.worker.faults.calls["journal.append.tool_result"]
        await flow.until(lambda: flow.worker.faults.calls["journal.head"] >= 2)
        flow.worker.faults.come_back()
        row = await flow.outcome(receipt)

        assert row.status == "completed"
        assert bench.began == 1
        assert tries == 1
        assert results(await flow.journal(receipt)) == {"toolu_1_0": ("done", "worked")}


async def test_what_was_admitted_while_a_worker_could_not_reach_the_store_is_done_when_it_can() -> None:
    async with Flow({"agent": an_agent()}) as flow:
        flow.worker.faults.go_away()
        receipt = await flow.dispatch("go")
        tries = flow.worker.faults.calls["fleet.heartbeat"]
        await flow.until(lambda: flow.worker.faults.calls["fleet.heartbeat"] > tries)
        assert (await flow.row(receipt)).status == "queued"
        flow.worker.faults.come_back()

        assert (await flow.outcome(receipt)).status == "completed"


async def test_a_worker_that_was_stopped_for_longer_than_its_lease_writes_nothing_when_it_goes_on() -> None:
    bench = Bench()
    model = ScriptedModel(calls(("work", {})), "I looked it up.", "late")
    async with Flow({"agent": an_agent(bench.tool)}, model=model) as flow:
        receipt = await flow.receive("standard", "go")
        await bench.reached.wait()
        paused = flow.worker
        old_id = paused.worker.id
        paused.pause()
        await flow.start_worker()
        await flow.pass_time(16)
        row = await flow.outcome(receipt)
        head = await flow.store.journal.head(row.session_id)

        bench.let_go.set()
        paused.resume()
        await flow.until(lambda: paused.worker.id != old_id)
        await flow.until_idle()

        assert results(await flow.journal(receipt))["toolu_1_0"][0] == "unknown"
        assert (await flow.store.journal.head(row.session_id)) == head
        assert await flow.replies() == ["I looked it up."]


async def test_a_worker_that_was_declared_dead_comes_back_as_a_new_one_and_works_again() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello")) as flow:
        old_id = flow.worker.worker.id
        await flow.store.fleet.retire(old_id)
        await flow.until(lambda: flow.worker.worker.id != old_id)

        assert (await flow.outcome(await flow.dispatch("hi"))).status == "completed"
        rows = {row.id: row.status for row in await flow.store.views.workers()}
        assert rows[old_id] == "dead"
        assert rows[flow.worker.worker.id] == "live"


async def test_a_lease_lost_in_the_middle_of_a_turn_ends_it_quietly(caplog: pytest.LogCaptureFixture) -> None:
    held = Held("stale")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "fresh")) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        flow.worker.pause()
        await flow.start_worker()
        await flow.pass_time(16)
        assert (await flow.outcome(receipt)).result is not None
        held.release.set()
        flow.workers[0].resume()
        await flow.until_idle()

        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        row = await flow.row(receipt)
        assert row.result is not None
        assert row.result.text == "fresh"


async def test_no_tool_starts_in_a_process_that_has_not_proved_itself_alive() -> None:
    """The clock jumps over the fence between the record of the start and the start, as a frozen VM's does."""
    bench = Bench()
    async with Flow({"agent": an_agent(bench.tool)}, model=ScriptedModel(calls(("work", {})), "done")) as flow:
        assert isinstance(flow.clock, FakeClock)
        hold = flow.worker.faults.hold("journal.append.tool_started", when="after")
        receipt = await flow.dispatch("go")
        await hold.reached.wait()
        flow.worker.faults.fail("fleet.heartbeat", StoreUnavailableError(), times=3)
        flow.clock.advance(timedelta(seconds=12.5))
        hold.release.set()
        row = await flow.outcome(receipt)

        assert bench.began == 0
        assert row.status == "completed"
        assert results(await flow.journal(receipt))["toolu_1_0"][0] == "unknown"


async def test_nothing_is_sent_by_a_process_that_has_not_proved_itself_alive() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello")) as flow:
        assert isinstance(flow.clock, FakeClock)
        stopped = flow.worker
        hold = stopped.faults.hold("outbox.sent")
        flow.platforms.fail(Failure("standard", status=503))
        await flow.receive("standard", "hi")
        await flow.until(lambda: is_delayed(flow))
        await stopped.kill()
        stopped.faults.thaw()
        flow.clock.advance(timedelta(seconds=11.9))
        [item] = await flow.store.outbox.claim_due(stopped.worker.id, 1)

        flow.clock.advance(timedelta(seconds=0.2))
        await deliver(stopped.worker.place, item)
        assert flow.platforms.messages() == []
        assert not hold.reached.is_set()


async def is_delayed(flow: Flow) -> bool:
    return any(item.status == "pending" and item.attempts for item in await flow.store.views.outbox())


async def test_a_heartbeat_that_hangs_is_given_up_when_the_fence_closes_not_when_the_lease_ends() -> None:
    clock = FakeClock()
    liveness = Liveness(clock, 15, 3)
    assert liveness.left == 12
    clock.advance(timedelta(seconds=11))
    assert liveness.left == 1
    assert liveness.alive
    clock.advance(timedelta(seconds=1))
    assert not liveness.alive
    liveness.proved(clock.monotonic() - 2)
    assert liveness.left == 10
    liveness.declare_dead()
    assert not liveness.alive


async def test_a_claim_whose_answer_was_lost_is_found_in_the_next_round_and_given_up() -> None:
    settings = Settings(worker=replace(FAST, rescue=0.3))
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello"), settings=settings) as flow:
        flow.worker.faults.fail("ledger.claim", CommitUnknownError(), when="after")
        receipt = await flow.dispatch("go")

        async with asyncio.timeout(2):  # every tenth round looks anyway, which would be three seconds
            assert (await flow.outcome(receipt)).status == "completed"
        assert flow.worker.faults.calls["fleet.disown"] >= 1


async def test_giving_up_what_is_unknown_never_meets_a_claim_under_way() -> None:
    held = Held("hello")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "never")) as flow:
        hold = flow.worker.faults.hold("ledger.claim", when="after")
        receipt = await flow.dispatch("go")
        await hold.reached.wait()
        flow.worker.worker.place.doubtful = True
        rounds = flow.worker.faults.calls["fleet.reap"]
        await flow.until(lambda: flow.worker.faults.calls["fleet.reap"] > rounds)
        assert flow.worker.faults.calls["fleet.disown"] <= 1
        hold.release.set()
        await held.reached.wait()
        held.release.set()

        row = await flow.outcome(receipt)
        assert row.status == "completed"
        _, token = await flow.store.journal.head(row.session_id)
        assert token == 1, "it was claimed once and never given away"


async def test_work_goes_on_with_the_bell_gone() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello")) as flow:
        flow.bell.wake = None

        assert (await flow.outcome(await flow.dispatch("go"))).status == "completed"


async def test_ringing_twice_changes_nothing() -> None:
    held = Held("hello")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "never")) as flow:
        other = await flow.start_worker()
        receipt = await flow.receive("standard", "go")
        await held.reached.wait()
        session_id = (await flow.row(receipt)).session_id
        for _ in range(3):
            flow.worker.worker.wake(session_id)
            other.worker.wake(session_id)
        await asyncio.sleep(0)
        held.release.set()
        await flow.outcome(receipt)
        await flow.until_idle()

        assert len(flow.model_calls) == 1
        assert await flow.replies() == ["hello"]
