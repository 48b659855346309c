"""SIGTERM: nothing is lost, no attempt is spent, and what was begun ends well or goes on elsewhere."""

from __future__ import annotations

import asyncio

from pyflue import tool
from pyflue.entries import InputEntry
from pyflue.testing.flow import Flow
from pyflue.testing.models import Held, ScriptedModel, calls
from pyflue.testing.posted import Failure
from tests.session.agents import Bench, an_agent, results


async def test_a_turn_reaches_its_boundary_and_goes_on_elsewhere_without_spending_an_attempt() -> None:
    bench = Bench()
    model = ScriptedModel(calls(("work", {})), "done")
    agent = an_agent(bench.tool, limits={"max_attempts": 1})
    async with Flow({"agent": agent}, model=model) as flow:
        receipt = await flow.dispatch("go")
        await bench.reached.wait()
        first = flow.worker
        stopping = asyncio.create_task(first.stop())
        await flow.until(lambda: first.worker.place.draining)
        bench.let_go.set()
        await stopping
        row = await flow.row(receipt)
        assert (row.status, row.attempts) == ("queued", 0)
        assert results(await flow.journal(receipt)) == {"toolu_1_0": ("done", "worked")}
        assert len(flow.model_calls) == 1

        await flow.start_worker()
        assert (await flow.outcome(receipt)).status == "completed"
        assert "dispatch.handed_back" in [event.type for event in await flow.events(receipt)]


async def test_a_model_call_is_cancelled_after_the_drain_time_and_asked_again_elsewhere() -> None:
    held = Held("too slow")
    agent = an_agent(limits={"max_attempts": 1})
    async with Flow({"agent": agent}, model=ScriptedModel(held, "said elsewhere")) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        await flow.worker.stop(drain=0.05)

        assert held.cancelled
        assert (await flow.row(receipt)).attempts == 0
        await flow.start_worker()
        row = await flow.outcome(receipt)
        assert row.result is not None
        assert row.result.text == "said elsewhere"
        assert [type(entry) for entry in await flow.journal(receipt)].count(InputEntry) == 1


async def test_leases_are_handed_back_at_once_and_nobody_waits_for_them_to_run_out() -> None:
    held = Held("x")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "quick")) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        await flow.start_worker()
        await flow.workers[0].stop(drain=0.01)

        assert (await flow.outcome(receipt)).status == "completed"  # the clock has not moved


async def test_a_stopping_worker_takes_no_new_work() -> None:
    held = Held("x")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "never")) as flow:
        await flow.dispatch("go", thread="busy")
        await held.reached.wait()
        stopping = asyncio.create_task(flow.worker.stop())
        worker = flow.workers[0].worker
        await flow.until(lambda: worker.place.draining)
        receipt = await flow.dispatch("go", thread="new")
        worker.wake((await flow.row(receipt)).session_id)
        await worker.accept((await flow.row(receipt)).session_id)
        held.release.set()
        await stopping

        assert (await flow.row(receipt)).status == "queued"
        assert len(flow.model_calls) == 1


async def test_an_answer_that_comes_within_the_drain_time_is_settled_and_its_reply_leaves() -> None:
    held = Held("just in time")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held)) as flow:
        receipt = await flow.receive("standard", "go")
        await held.reached.wait()
        stopping = asyncio.create_task(flow.worker.stop())
        await flow.until(lambda: flow.workers[0].worker.place.draining)
        held.release.set()
        await stopping

        assert (await flow.row(receipt)).status == "completed"
        assert await flow.replies() == ["just in time"]
        assert [item.status for item in await flow.store.views.outbox()] == ["sent"]


async def test_a_reply_that_cannot_be_finished_in_time_is_left_to_others() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello")) as flow:
        flow.platforms.fail(Failure("standard", how="hang"))
        receipt = await flow.receive("standard", "go")
        await flow.outcome(receipt)
        await flow.until(lambda: bool(flow.worker.worker.place.sending))
        stopped = flow.worker
        stopped.worker._settings = type(stopped.worker._settings)(grace=0.05)
        await stopped.stop(drain=0.05)
        await flow.start_worker()

        assert await flow.replies() == ["hello"]


async def test_those_queued_behind_go_on_elsewhere_in_order() -> None:
    held = Held("one")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "two", "three")) as flow:
        receipts = [await flow.receive("standard", f"message {number}") for number in range(3)]
        await held.reached.wait()
        stopping = asyncio.create_task(flow.worker.stop())
        await flow.until(lambda: flow.workers[0].worker.place.draining)
        held.release.set()
        await stopping
        assert [(await flow.row(receipt)).status for receipt in receipts] == ["completed", "queued", "queued"]
        await flow.start_worker()

        assert await flow.replies(count=3) == ["one", "two", "three"]


async def test_a_tool_that_will_not_be_cancelled_does_not_keep_the_process() -> None:
    let_go = asyncio.Event()
    reached = asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Refuse to stop."""
        reached.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "finally"

    async with Flow({"agent": an_agent(stubborn)}, model=ScriptedModel(calls(("stubborn", {})), "next")) as flow:
        await flow.dispatch("go")
        await reached.wait()
        stopped = flow.worker
        stopped.worker._settings = type(stopped.worker._settings)(grace=0.05)
        async with asyncio.timeout(5):
            await stopped.stop(drain=0.05)
        let_go.set()
