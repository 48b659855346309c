"""Aborting: whatever the dispatch is doing, it ends soon, once, and leaves a history the next message can follow."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pyflue.dispatches import Receipt
from pyflue.entries import AdvisoryEntry
from pyflue.messages import ToolResultPart
from pyflue.models.protocol import ModelFailure
from pyflue.testing.flow import Flow
from pyflue.testing.models import Held, ScriptedModel, calls
from tests.session.agents import Bench, an_agent, results


async def abort(flow: Flow, receipt: Receipt) -> None:
    """Ask as another process would: through the store alone, so that only a heartbeat can tell the worker."""
    await flow.store.ledger.request_abort(receipt.dispatch_id)


async def test_a_queued_dispatch_is_aborted_without_ever_starting() -> None:
    held = Held("first")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "never")) as flow:
        first, second = await flow.dispatch("one"), await flow.dispatch("two")
        await held.reached.wait()
        await abort(flow, second)
        held.release.set()
        row = await flow.outcome(second)

        assert row.status == "aborted"
        assert row.started_at is None
        assert (await flow.row(first)).status == "completed"
        assert len(flow.model_calls) == 1


async def test_a_model_call_is_cancelled_and_the_next_message_is_answered() -> None:
    held = Held("never said")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "the second answer")) as flow:
        receipt = await flow.dispatch("a long story, please")
        await held.reached.wait()
        await abort(flow, receipt)
        row = await flow.outcome(receipt)

        assert row.status == "aborted"
        assert held.cancelled
        after = await flow.outcome(await flow.dispatch("never mind"))
        assert after.status == "completed"
        said = [part.text for part in flow.model_calls[1].messages[0].content]  # type: ignore[union-attr]
        assert said[0] == "a long story, please"
        assert "stopped" in said[1]


async def test_it_takes_no_longer_than_a_heartbeat_and_the_store() -> None:
    """A hundredth of a second here; the bound leaves room for a busy machine, not for a rescue round of seconds."""
    held = Held("x")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held)) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await abort(flow, receipt)
        await flow.outcome(receipt)

        assert loop.time() - asked < 1.0


async def test_open_calls_are_closed_so_that_the_history_stays_valid() -> None:
    started, other = Bench("started"), Bench("other", retry="safe")
    model = ScriptedModel(calls(("started", {}), ("other", {})), "next answer")
    async with Flow({"agent": an_agent(started.tool, other.tool)}, model=model) as flow:
        receipt = await flow.dispatch("go")
        await started.reached.wait()
        await other.reached.wait()
        await abort(flow, receipt)
        assert (await flow.outcome(receipt)).status == "aborted"

        assert (started.cancelled, other.cancelled) == (1, 1)
        outcomes = {call_id: outcome for call_id, (outcome, _) in results(await flow.journal(receipt)).items()}
        assert outcomes == {"toolu_1_0": "unknown", "toolu_1_1": "not_run"}
        await flow.outcome(await flow.dispatch("and now?"))
        answered = [part for part in flow.model_calls[1].messages[-1].content if isinstance(part, ToolResultPart)]
        assert {part.tool_use_id for part in answered} == {"toolu_1_0", "toolu_1_1"}


async def test_a_write_under_way_is_finished_first_and_nothing_waits_for_a_rescue() -> None:
    bench = Bench()
    bench.let_go.set()
    async with Flow({"agent": an_agent(bench.tool)}, model=ScriptedModel(calls(("work", {})), "next")) as flow:
        hold = flow.worker.faults.hold("journal.append.tool_result")
        receipt = await flow.dispatch("go")
        await hold.reached.wait()
        await abort(flow, receipt)
        await flow.until(lambda: any(control.reason == "abort" for control in _running(flow)))
        hold.release.set()
        assert (await flow.outcome(receipt)).status == "aborted"

        assert results(await flow.journal(receipt)) == {"toolu_1_0": ("done", "worked")}
        assert (await flow.outcome(await flow.dispatch("and now?"))).status == "completed"
        assert (await flow.store.journal.head((await flow.row(receipt)).session_id))[1] <= 2


def _running(flow: Flow) -> list[object]:
    return list(flow.worker.worker.place.running.values())


async def test_a_parked_dispatch_is_aborted_at_once_and_frees_those_behind_it() -> None:
    busy = ModelFailure("overloaded", "model_overloaded", "Busy.", retry_after=timedelta(hours=1))
    async with Flow({"agent": an_agent()}, model=ScriptedModel(busy, "second")) as flow:
        parked = await flow.dispatch("one")

        async def is_parked() -> bool:
            return (await flow.row(parked)).available_at > flow.clock.now()

        await flow.until(is_parked)
        behind = await flow.dispatch("two")
        await abort(flow, parked)

        assert (await flow.outcome(parked)).status == "aborted"
        assert (await flow.outcome(behind)).status == "completed"


async def test_the_process_that_holds_it_is_told_by_its_heartbeat_wherever_it_was_asked() -> None:
    held = Held("x")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held)) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        other = await flow.start_worker()
        await other.worker.place.store.ledger.request_abort(receipt.dispatch_id)

        row = await flow.outcome(receipt)
        assert row.status == "aborted"
        events = [event.type for event in await flow.events(receipt)]
        assert events == ["dispatch.accepted", "dispatch.started", "dispatch.abort_requested", "dispatch.settled"]


async def test_a_finished_answer_keeps_its_outcome() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("done")) as flow:
        hold = flow.worker.faults.hold("ledger.settle")
        receipt = await flow.dispatch("go")
        await hold.reached.wait()
        await abort(flow, receipt)
        hold.release.set()
        row = await flow.outcome(receipt)

        assert row.status == "completed"
        assert not any(isinstance(entry, AdvisoryEntry) for entry in await flow.journal(receipt))


async def test_a_settled_dispatch_stays_as_it_is() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("done")) as flow:
        receipt = await flow.dispatch("go")
        await flow.outcome(receipt)
        await abort(flow, receipt)
        await flow.until_idle()

        assert (await flow.row(receipt)).status == "completed"


async def test_an_abort_posts_nothing() -> None:
    held = Held("x")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held)) as flow:
        receipt = await flow.receive("standard", "go")
        await held.reached.wait()
        await abort(flow, receipt)
        await flow.outcome(receipt)
        await flow.until_idle()

        assert flow.platforms.messages() == []


async def test_an_abort_outlives_the_worker_that_held_the_dispatch() -> None:
    held = Held("x")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "never")) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        flow.worker.pause()
        await abort(flow, receipt)
        await flow.workers[0].kill()
        await flow.start_worker()
        await flow.pass_time(16)

        assert (await flow.outcome(receipt)).status == "aborted"
        assert len(flow.model_calls) == 1
