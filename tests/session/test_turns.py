"""The turn loop: what the model asks for is done once, what went wrong it is told, and what was recorded stays."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import cast

import pytest
from msgspec.structs import replace

from pyflue import ToolContext, ToolError, define_tool, tool
from pyflue.entries import ToolResultEntry, ToolStartedEntry
from pyflue.errors import StoreUnavailableError
from pyflue.messages import AssistantMessage, ModelAnswer, TextPart, ToolResultPart, UserMessage
from pyflue.testing.flow import Flow
from pyflue.testing.models import Held, ScriptedModel, calls
from pyflue.tools.tool import AbortSignal
from tests.session.agents import Bench, an_agent, kinds, results


@tool
async def double(text: str) -> str:
    """Say it twice."""
    return text * 2


async def test_a_tool_call_is_answered_and_the_model_asked_again() -> None:
    model = ScriptedModel(calls(("double", {"text": "ab"}), text="one moment"), "It is abab.")
    async with Flow({"agent": an_agent(double)}, model=model) as flow:
        row = await flow.outcome(await flow.dispatch("double ab"))

        assert row.status == "completed"
        assert row.result is not None
        assert (row.result.text, row.result.turns) == ("It is abab.", 2)
        assert row.result.usage.input_tokens == 20
        assert kinds(await flow.journal(row.id)) == ["input", "answer", "tool_started", "tool_result", "answer"]
        last = flow.model_calls[1].messages[-1]
        assert last == UserMessage((ToolResultPart("toolu_1_0", "abab"),))


async def test_the_calls_of_one_answer_run_at_the_same_time() -> None:
    one, two = Bench("one"), Bench("two")
    async with Flow(
        {"agent": an_agent(one.tool, two.tool)}, model=ScriptedModel(calls(("one", {}), ("two", {})), "done")
    ) as flow:
        receipt = await flow.dispatch("go")
        await one.reached.wait()
        await two.reached.wait()
        one.let_go.set()
        two.let_go.set()

        assert (await flow.outcome(receipt)).status == "completed"


async def test_each_result_is_recorded_as_it_lands_and_order_does_not_matter() -> None:
    slow, fast = Bench("slow"), Bench("fast")
    fast.let_go.set()
    async with Flow(
        {"agent": an_agent(slow.tool, fast.tool)}, model=ScriptedModel(calls(("slow", {}), ("fast", {})), "done")
    ) as flow:
        receipt = await flow.dispatch("go")

        async def fast_is_recorded() -> bool:
            return "toolu_1_1" in results(await flow.journal(receipt))

        await flow.until(fast_is_recorded)
        assert "toolu_1_0" not in results(await flow.journal(receipt))
        slow.let_go.set()
        await flow.outcome(receipt)

        assert [part.tool_use_id for part in flow.model_calls[1].messages[-1].content] == ["toolu_1_1", "toolu_1_0"]


async def test_a_tool_starts_only_once_its_start_is_durable() -> None:
    bench = Bench()
    async with Flow({"agent": an_agent(bench.tool)}, model=ScriptedModel(calls(("work", {})), "done")) as flow:
        hold = flow.worker.faults.hold("journal.append.tool_started")
        receipt = await flow.dispatch("go")
        await hold.reached.wait()
        assert bench.began == 0

        hold.release.set()
        await bench.reached.wait()

        assert any(isinstance(entry, ToolStartedEntry) for entry in await flow.journal(receipt))
        bench.let_go.set()
        await flow.outcome(receipt)


async def test_an_answer_is_durable_before_any_of_its_tools_starts() -> None:
    bench = Bench(retry="safe")
    async with Flow({"agent": an_agent(bench.tool)}, model=ScriptedModel(calls(("work", {})), "done")) as flow:
        hold = flow.worker.faults.hold("journal.append.answer", when="before")
        receipt = await flow.dispatch("go")
        await hold.reached.wait()
        assert bench.began == 0

        hold.release.set()
        await bench.reached.wait()
        bench.let_go.set()
        await flow.outcome(receipt)
        assert bench.began == 1


@tool
async def add(left: int, right: int) -> int:
    """Add."""
    return left + right


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be told")


@tool
async def fail(how: str) -> str:
    """Fail."""
    if how == "politely":
        raise ToolError("Try again with a smaller number.")
    if how == "silently":
        raise ToolError("")
    if how == "exit":
        raise SystemExit(3)
    if how == "without words":
        raise Wordless
    if how == "unreadably":
        return cast("str", object())
    if how == "own timeout":
        raise TimeoutError("the other side is slow")
    raise ValueError("no good")


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("add", {"left": "many", "right": 1}, "left"),
        ("add", {"left": 1}, "right"),
        ("subtract", {}, "There is no tool named 'subtract'. Tools: add, fail."),
        ("fail", {"how": "politely"}, "Try again with a smaller number."),
        ("fail", {"how": "silently"}, "did not say why"),
        ("fail", {"how": "badly"}, "ValueError: no good"),
        ("fail", {"how": "exit"}, "tried to end the process"),
        ("fail", {"how": "without words"}, "Wordless"),
        (
            "fail",
            {"how": "unreadably"},
            "The tool ran, but what it returned is neither text nor JSON. Encoding objects",
        ),
        ("fail", {"how": "own timeout"}, "TimeoutError: the other side is slow"),
    ],
)
async def test_what_goes_wrong_with_a_call_is_told_to_the_model(
    name: str, arguments: dict[str, object], told: str
) -> None:
    async with Flow({"agent": an_agent(add, fail)}, model=ScriptedModel(calls((name, arguments)), "sorry")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        assert row.status == "completed"
        [(outcome, content)] = results(await flow.journal(row.id)).values()
        assert outcome == "error"
        assert told in content
        part = flow.model_calls[1].messages[-1].content[0]
        assert isinstance(part, ToolResultPart)
        assert part.is_error


async def test_a_tool_is_stopped_at_its_own_time_limit_and_the_model_is_told() -> None:
    async def forever(arguments: dict[str, object]) -> str:
        await asyncio.Event().wait()
        return "never"

    slow = define_tool(name="slow", description="Takes for ever.", execute=forever, timeout=0.02)
    async with Flow({"agent": an_agent(slow)}, model=ScriptedModel(calls(("slow", {})), "gave up")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        [(outcome, content)] = results(await flow.journal(row.id)).values()
        assert outcome == "error"
        assert "stopped after 0.02 seconds" in content


async def test_a_sync_tool_is_told_that_its_time_is_up_and_others_are_not() -> None:
    told = threading.Event()
    bench = Bench("other")

    def patient(arguments: dict[str, object], signal: AbortSignal) -> str:
        while not signal.aborted:
            time.sleep(0.002)
        told.set()
        return "stopped"

    slow = define_tool(name="patient", description="Waits.", execute=patient, timeout=0.05)
    model = ScriptedModel(calls(("patient", {}), ("other", {})), "done")
    async with Flow({"agent": an_agent(slow, bench.tool)}, model=model) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(told.is_set)
        assert bench.cancelled == 0
        bench.let_go.set()
        await flow.outcome(receipt)

        outcomes = [outcome for outcome, _ in results(await flow.journal(receipt)).values()]
        assert sorted(outcomes) == ["done", "error"]


async def test_the_agents_limit_holds_for_tools_without_one() -> None:
    bench = Bench()
    agent = an_agent(bench.tool, limits={"tool_timeout": 0.02})
    async with Flow({"agent": agent}, model=ScriptedModel(calls(("work", {})), "gave up")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        assert "stopped after" in results(await flow.journal(row.id))["toolu_1_0"][1]
        assert bench.cancelled == 1


async def test_an_oversized_result_is_cut_and_says_so() -> None:
    agent = an_agent(double, limits={"tool_result_characters": 10})
    async with Flow({"agent": agent}, model=ScriptedModel(calls(("double", {"text": "x" * 20})), "long")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        content = results(await flow.journal(row.id))["toolu_1_0"][1]
        assert content == "x" * 10 + "\n[cut: 30 of 40 characters left out]"


async def test_a_result_that_utf_8_cannot_hold_is_still_recorded() -> None:
    @tool
    async def careless() -> str:
        """Decode badly."""
        return b"caf\xe9".decode("utf-8", "surrogateescape")

    async with Flow({"agent": an_agent(careless)}, model=ScriptedModel(calls(("careless", {})), "done")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        assert results(await flow.journal(row.id))["toolu_1_0"] == ("done", "caf?")


async def test_a_sync_tool_does_not_hold_up_the_loop() -> None:
    go_on = threading.Event()

    @tool
    def blocking() -> str:
        """Block."""
        go_on.wait(10)
        return "done"

    async with Flow({"agent": an_agent(blocking)}, model=ScriptedModel(calls(("blocking", {})), "one", "two")) as flow:
        held_up = await flow.dispatch("go", thread="slow")

        async def has_started() -> bool:
            return "tool_started" in kinds(await flow.journal(held_up))

        await flow.until(has_started)
        assert (await flow.outcome(await flow.dispatch("hello", thread="other"))).status == "completed"
        go_on.set()
        assert (await flow.outcome(held_up)).status == "completed"


async def test_the_reply_tool_posts_what_it_was_given_once_and_the_final_text_stays_here() -> None:
    model = ScriptedModel(calls(("reply", {"text": "Hello, people."})), "I have told them.")
    async with Flow({"agent": an_agent()}, model=model, channels={"standard": "tool"}) as flow:
        row = await flow.outcome(await flow.receive("standard", "hi"))
        await flow.until_idle()

        assert await flow.replies() == ["Hello, people."]
        assert row.result is not None
        assert row.result.text == "I have told them."
        assert "reply" in [spec.name for spec in flow.model_calls[0].tools]


async def test_the_reply_tool_is_there_only_where_replies_are_its_business() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("a", "b")) as flow:
        await flow.outcome(await flow.receive("standard", "hi"))
        await flow.outcome(await flow.dispatch("hi"))

        assert [call.tools for call in flow.model_calls] == [(), ()]


async def test_a_reply_is_posted_once_even_if_its_worker_dies_right_after_recording_it() -> None:
    model = ScriptedModel(calls(("reply", {"text": "Once."})), "done", then="done")
    async with Flow({"agent": an_agent()}, model=model, channels={"standard": "tool"}) as flow:
        hold = flow.worker.faults.hold("journal.append.tool_result", when="after")
        receipt = await flow.receive("standard", "hi")
        await hold.reached.wait()
        await flow.take_over()
        assert (await flow.outcome(receipt)).status == "completed"
        await flow.until_idle()

        assert await flow.replies() == ["Once."]


async def test_two_replies_with_the_same_call_id_are_both_posted() -> None:
    """Some gateways number calls from zero in every answer."""
    first, second = (calls(("reply", {"text": text}, "call_0")) for text in ("One.", "Two."))
    async with Flow(
        {"agent": an_agent()}, model=ScriptedModel(first, second, "done"), channels={"standard": "tool"}
    ) as flow:
        await flow.outcome(await flow.receive("standard", "hi"))

        assert await flow.replies(count=2) == ["One.", "Two."]


async def test_bad_arguments_of_the_reply_tool_go_back_to_the_model() -> None:
    wrong = calls(("reply", {"message": "hi"}), ("reply", {"text": "  "}))
    async with Flow({"agent": an_agent()}, model=ScriptedModel(wrong, "sorry"), channels={"standard": "tool"}) as flow:
        row = await flow.outcome(await flow.receive("standard", "hi"))

        assert [outcome for outcome, _ in results(await flow.journal(row.id)).values()] == ["error", "error"]
        assert flow.platforms.messages() == []


async def test_a_safe_tool_runs_again_after_a_takeover_with_the_same_key() -> None:
    bench = Bench(retry="safe")
    async with Flow({"agent": an_agent(bench.tool)}, model=ScriptedModel(calls(("work", {})), "done")) as flow:
        receipt = await flow.dispatch("go")
        await bench.reached.wait()
        bench.let_go.set()
        bench.reached.clear()
        flow.worker.faults.freeze()
        await flow.take_over()
        assert (await flow.outcome(receipt)).status == "completed"

        assert bench.began == 2
        assert len(set(bench.keys)) == 1
        assert bench.keys[0] == f"{receipt.dispatch_id}:toolu_1_0"


async def test_any_other_tool_does_not_and_the_model_is_told_that_nobody_knows() -> None:
    bench = Bench()
    async with Flow({"agent": an_agent(bench.tool)}, model=ScriptedModel(calls(("work", {})), "I shall look.")) as flow:
        receipt = await flow.dispatch("go")
        await bench.reached.wait()
        await flow.take_over()
        assert (await flow.outcome(receipt)).status == "completed"

        assert bench.began == 1
        outcome, content = results(await flow.journal(receipt))["toolu_1_0"]
        assert outcome == "unknown"
        assert "may or may not" in content
        assert len(flow.model_calls) == 2


async def test_results_that_were_recorded_are_kept_and_only_the_rest_runs() -> None:
    first, second = Bench("first"), Bench("second", retry="safe")
    first.let_go.set()
    model = ScriptedModel(calls(("first", {}), ("second", {})), "done")
    async with Flow({"agent": an_agent(first.tool, second.tool)}, model=model) as flow:
        receipt = await flow.dispatch("go")

        async def first_is_recorded() -> bool:
            return "toolu_1_0" in results(await flow.journal(receipt))

        await flow.until(first_is_recorded)
        await second.reached.wait()
        await flow.take_over()
        second.let_go.set()
        assert (await flow.outcome(receipt)).status == "completed"

        assert (first.began, second.began) == (1, 2)
        assert {outcome for outcome, _ in results(await flow.journal(receipt)).values()} == {"done"}


async def test_a_step_of_a_tool_runs_once_even_if_the_tool_runs_twice() -> None:
    ran: list[str] = []
    gate = asyncio.Event()

    @tool(retry="safe")
    async def two_steps(context: ToolContext) -> str:
        """Charge, then ship."""

        async def charge() -> dict[str, int]:
            ran.append("charge")
            return {"receipt": 7}

        charged = await context.step("charge", charge)
        ran.append("waiting")
        await gate.wait()
        return json.dumps(charged)

    async with Flow({"agent": an_agent(two_steps)}, model=ScriptedModel(calls(("two_steps", {})), "done")) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(lambda: "waiting" in ran)
        await flow.take_over()
        await flow.until(lambda: ran.count("waiting") == 2)
        gate.set()
        await flow.outcome(receipt)

        assert ran.count("charge") == 1
        assert results(await flow.journal(receipt))["toolu_1_0"] == ("done", '{"receipt": 7}')


async def test_a_step_waits_for_a_store_that_is_away_instead_of_failing_the_tool() -> None:
    ran: list[int] = []

    @tool
    async def charge(context: ToolContext) -> int:
        """Charge."""

        async def once() -> int:
            ran.append(1)
            return 5

        return await context.step("once", once)

    async with Flow({"agent": an_agent(charge)}, model=ScriptedModel(calls(("charge", {})), "done")) as flow:
        flow.worker.faults.fail("steps.put", StoreUnavailableError(), times=2)
        row = await flow.outcome(await flow.dispatch("go"))

        assert ran == [1]
        assert results(await flow.journal(row.id))["toolu_1_0"] == ("done", "5")


async def test_an_answer_cut_by_a_limit_is_final_and_its_half_calls_never_run() -> None:
    bench = Bench()
    cut = calls(("work", {}), text="Let me")
    model = ScriptedModel(replace(cut, stop_reason="max_tokens"), "hello again")
    async with Flow({"agent": an_agent(bench.tool)}, model=model) as flow:
        row = await flow.outcome(await flow.dispatch("go"))
        assert row.result is not None
        assert (row.result.text, row.result.stop_reason) == ("Let me", "max_tokens")
        assert bench.began == 0

        await flow.outcome(await flow.dispatch("again"))
        assert results(await flow.journal(row.id))["toolu_1_0"][0] == "not_run"


async def test_a_paused_answer_is_continued() -> None:
    paused = ModelAnswer((TextPart("first half, "),), "pause_turn", "scripted")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(paused, "second half", "more")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))
        assert row.result is not None
        assert (row.result.text, row.result.turns) == ("second half", 2)

        await flow.outcome(await flow.dispatch("again"))
        roles = [type(message) for message in flow.model_calls[2].messages]
        assert roles == [UserMessage, AssistantMessage, UserMessage]


async def test_events_say_what_happened_in_the_order_it_happened() -> None:
    async with Flow({"agent": an_agent(double)}, model=ScriptedModel(calls(("double", {"text": "a"})), "aa")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))
        events = await flow.events(row.id)

        assert [event.type for event in events] == [
            "dispatch.accepted",
            "dispatch.started",
            "turn.answered",
            "tool.started",
            "tool.finished",
            "turn.answered",
            "dispatch.settled",
        ]
        assert [event.seq for event in events] == list(range(1, 8))


async def test_history_is_carried_over_to_the_next_message_of_a_session() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("Hello Ada.", "Your name is Ada.")) as flow:
        await flow.outcome(await flow.dispatch("I am Ada."))
        await flow.outcome(await flow.dispatch("Who am I?"))

        assert len(flow.model_calls[1].messages) == 3
        assert flow.model_calls[1].messages[:1] == flow.model_calls[0].messages


async def test_a_model_call_that_is_cancelled_by_a_death_is_made_again() -> None:
    held = Held("never said")
    async with Flow({"agent": an_agent()}, model=ScriptedModel(held, "said")) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        await flow.take_over()
        row = await flow.outcome(receipt)

        assert held.cancelled
        assert row.result is not None
        assert row.result.text == "said"
        assert flow.model_calls[0].messages == flow.model_calls[1].messages
        assert not any(isinstance(entry, ToolResultEntry) for entry in await flow.journal(receipt))
