"""What one dispatch may use, checked between turns, and how failures of the provider are dealt with."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from pyflue import AgentLimits, create_agent
from pyflue.config import ModelSettings, ModelsSettings, RetrySettings, Settings
from pyflue.dispatches import Receipt
from pyflue.entries import AnswerEntry, InputEntry, JournalLine
from pyflue.events import DispatchParked, decode_event
from pyflue.mailbox import attempt
from pyflue.mailbox.attempt import judge
from pyflue.messages import Usage
from pyflue.models.protocol import FailureKind, ModelFailure
from pyflue.session.turn import Aborted, Completed, Failed
from pyflue.testing.flow import FAST, SECRETS, Flow
from pyflue.testing.models import Held, ScriptedModel, calls, says
from tests.session.agents import Bench, an_agent

RETRY = RetrySettings(first_delay=1.0, longest_delay=4.0, rate_limit_delay=10.0)
SETTINGS = Settings(worker=FAST, retry=RETRY)


def failure(kind: FailureKind, code: str = "model_failed", retry_after: float | None = None) -> ModelFailure:
    after = None if retry_after is None else timedelta(seconds=retry_after)
    return ModelFailure(kind, code, "The provider said no.", retry_after=after, detail="status 5xx")


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_turns": 2}, "turn_limit"),
        ({"max_tool_calls": 3}, "tool_call_limit"),
        ({"max_tokens_total": 30}, "token_limit"),
    ],
)
async def test_a_dispatch_that_goes_on_and_on_fails_at_its_limit(limits: dict[str, int], code: str) -> None:
    bench = Bench()
    bench.let_go.set()
    model = ScriptedModel(then=lambda request: calls(("work", {}), ("work", {})))
    async with Flow({"agent": an_agent(bench.tool, limits=limits)}, model=model) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        assert row.status == "failed"
        assert row.error is not None
        assert row.error.code == code
        assert len(flow.model_calls) == 2


async def test_a_final_answer_counts_even_if_it_is_over_a_limit() -> None:
    agent = an_agent(limits={"max_tokens_total": 10})
    async with Flow({"agent": agent}, model=ScriptedModel(says("done", usage=Usage(500, 500)))) as flow:
        assert (await flow.outcome(await flow.dispatch("go"))).status == "completed"


async def test_wall_clock_runs_from_the_first_start_and_while_parked() -> None:
    agent = an_agent(limits={"wall_clock": 60})
    model = ScriptedModel(failure("rate_limited", "model_rate_limited", 90), "too late")
    async with Flow({"agent": agent}, model=model, settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(lambda: is_parked(flow, receipt))
        await flow.pass_time(91)
        row = await flow.outcome(receipt)

        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "deadline")
        assert len(flow.model_calls) == 1


async def test_wall_clock_is_looked_at_between_turns() -> None:
    bench = Bench()
    agent = an_agent(bench.tool, limits={"wall_clock": 60})
    async with Flow({"agent": agent}, model=ScriptedModel(calls(("work", {})), "too late")) as flow:
        receipt = await flow.dispatch("go")
        await bench.reached.wait()
        await flow.pass_time(61)
        bench.let_go.set()
        row = await flow.outcome(receipt)

        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "deadline")
        assert bench.finished == 1


async def test_a_model_call_that_never_ends_is_ended_with_the_wall_clock() -> None:
    held = Held("too late")
    agent = an_agent(limits={"wall_clock": 0.05})
    async with Flow({"agent": agent}, model=ScriptedModel(held)) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "deadline")
        assert held.cancelled


async def is_parked(flow: Flow, receipt: Receipt) -> bool:
    row = await flow.row(receipt)
    return row.status == "queued" and row.available_at > flow.clock.now()


@pytest.mark.parametrize("kind", ["rate_limited", "overloaded"])
async def test_a_provider_that_asks_us_to_wait_costs_no_attempt_and_holds_no_worker(kind: FailureKind) -> None:
    agent = an_agent(limits=AgentLimits(max_attempts=1))
    model = ScriptedModel(failure(kind, retry_after=40), failure(kind, retry_after=40), "at last")
    settings = Settings(worker=FAST, retry=RETRY)
    async with Flow({"agent": agent}, model=model, settings=settings) as flow:
        receipt = await flow.dispatch("go")
        for _ in range(2):
            await flow.until(lambda: is_parked(flow, receipt))
            row = await flow.row(receipt)
            assert row.attempts == 0
            assert row.available_at - flow.clock.now() == timedelta(seconds=40)

            async def is_free() -> bool:
                return not any(worker.sessions for worker in await flow.store.views.workers())

            await flow.until(is_free)
            await flow.pass_time(39)
            assert (await flow.row(receipt)).status == "queued"
            await flow.pass_time(1)

        assert (await flow.outcome(receipt)).status == "completed"
        parked = [decode_event(event.data) for event in await flow.events(receipt)]
        assert [event.delay_ms for event in parked if isinstance(event, DispatchParked)] == [40_000, 40_000]


async def test_without_a_wish_of_the_providers_the_configured_pause_is_kept() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel(failure("overloaded"), "ok"), settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(lambda: is_parked(flow, receipt))

        assert (await flow.row(receipt)).available_at - flow.clock.now() == timedelta(seconds=10)


async def test_a_pause_too_short_to_be_one_is_not_a_busy_loop() -> None:
    hurried = failure("rate_limited", retry_after=0.001)
    async with Flow({"agent": an_agent()}, model=ScriptedModel(hurried, "ok"), settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(lambda: is_parked(flow, receipt))

        assert (await flow.row(receipt)).available_at - flow.clock.now() == timedelta(seconds=RETRY.first_delay)


async def test_a_parked_dispatch_leaves_its_slot_to_others() -> None:
    settings = Settings(worker=replace(FAST, turns=1), retry=RETRY)
    async with Flow({"agent": an_agent()}, model=ScriptedModel(failure("overloaded"), "ok"), settings=settings) as flow:
        parked = await flow.dispatch("go", thread="parked")
        await flow.until(lambda: is_parked(flow, parked))

        assert (await flow.outcome(await flow.dispatch("go", thread="other"))).status == "completed"
        assert (await flow.row(parked)).status == "queued"


async def test_a_passing_failure_is_tried_again_with_growing_pauses() -> None:
    model = ScriptedModel(*[failure("transient", "model_unavailable")] * 3, "ok")
    async with Flow({"agent": an_agent()}, model=model, settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        pauses: list[float] = []
        for attempt in (1, 2, 3):
            await flow.until(lambda: is_parked(flow, receipt))
            row = await flow.row(receipt)
            assert row.attempts == attempt
            pauses.append((row.available_at - flow.clock.now()).total_seconds())
            await flow.pass_time(pauses[-1])

        assert (await flow.outcome(receipt)).status == "completed"
        assert 0.75 <= pauses[0] <= 1.0
        assert 1.5 <= pauses[1] <= 2.0
        assert 3.0 <= pauses[2] <= 4.0


async def test_when_the_attempts_are_used_up_it_fails_with_the_last_cause() -> None:
    agent = an_agent(limits={"max_attempts": 2})
    model = ScriptedModel(failure("transient", "model_timeout"), failure("transient", "model_unavailable"))
    async with Flow({"agent": agent}, model=model, settings=SETTINGS) as flow:
        receipt = await flow.receive("standard", "go")
        await flow.until(lambda: is_parked(flow, receipt))
        await flow.pass_time(2)
        row = await flow.outcome(receipt)

        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "model_unavailable")
        assert "attempt 2 of 2" in row.error.message
        [reply] = await flow.replies()
        assert receipt.dispatch_id in reply
        assert "provider" not in reply


async def test_attempts_start_again_when_one_gets_somewhere() -> None:
    bench = Bench()
    bench.let_go.set()
    agent = an_agent(bench.tool, limits={"max_attempts": 2})
    down = failure("transient", "model_unavailable")
    model = ScriptedModel(down, calls(("work", {})), down, down, down, "never")
    async with Flow({"agent": agent}, model=model, settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        for _ in range(3):
            await flow.until(lambda: is_parked(flow, receipt))
            await flow.pass_time(((await flow.row(receipt)).available_at - flow.clock.now()).total_seconds())
        row = await flow.outcome(receipt)

        assert row.status == "failed"
        assert len(flow.model_calls) == 5
        assert bench.began == 1


@pytest.mark.parametrize("kind", ["fatal", "context_overflow"])
async def test_what_cannot_be_mended_fails_at_once_and_the_next_message_works(kind: FailureKind) -> None:
    model = ScriptedModel(failure(kind, "model_unauthorized"), "fine again")
    async with Flow({"agent": an_agent()}, model=model) as flow:
        row = await flow.outcome(await flow.dispatch("go"))
        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "model_unauthorized")
        assert "status 5xx" not in row.error.message

        assert (await flow.outcome(await flow.dispatch("again"))).status == "completed"
        assert len(flow.model_calls[1].messages) == 1


async def test_an_agent_that_cannot_be_built_costs_attempts_and_heals_when_it_is_mended() -> None:
    broken = True

    def initialize() -> dict[str, object]:
        if broken:
            raise RuntimeError("no such table")
        return {"instructions": "Help."}

    async with Flow({"agent": create_agent(initialize)}, model=ScriptedModel("hello"), settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(lambda: is_parked(flow, receipt))
        assert (await flow.row(receipt)).attempts == 1

        broken = False
        await flow.pass_time(1)
        assert (await flow.outcome(receipt)).status == "completed"


async def test_an_agent_that_is_never_mended_fails_its_dispatch_in_the_end() -> None:
    def initialize() -> dict[str, object]:
        raise RuntimeError("no such table")

    agent = create_agent(initialize, limits={"max_attempts": 2})
    async with Flow({"agent": agent}, settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        await flow.until(lambda: is_parked(flow, receipt))
        await flow.pass_time(2)
        row = await flow.outcome(receipt)

        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "agent_failed")
        assert "no such table" in row.error.message


async def test_a_secret_in_what_an_initializer_raised_is_not_stored() -> None:
    token = SECRETS.github_token.reveal()

    def initialize() -> dict[str, object]:
        raise RuntimeError(f"401 with {token}")

    agent = create_agent(initialize, limits={"max_attempts": 1})
    async with Flow({"agent": agent}, settings=SETTINGS) as flow:
        receipt = await flow.dispatch("go")
        row = await flow.outcome(receipt)

        assert row.error is not None
        assert "401 with …" in row.error.message
        assert token not in f"{row} {await flow.events(receipt)}"


async def test_an_initializer_that_hangs_is_given_up_and_costs_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "BUILD_SECONDS", 0.05)

    async def initialize() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    agent = create_agent(initialize, limits={"max_attempts": 1})
    async with Flow({"agent": agent}, settings=SETTINGS) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "agent_failed")
        assert "took over" in row.error.message


async def test_a_model_that_is_not_configured_fails_in_words() -> None:
    agent = an_agent(model="anthropic/claude-haiku-4-5", limits={"max_attempts": 1})
    async with Flow({"agent": agent}) as flow:
        row = await flow.outcome(await flow.dispatch("go"))

        assert row.error is not None
        assert "ANTHROPIC_API_KEY" in row.error.message


async def test_a_recorded_final_answer_is_settled_before_any_budget_is_looked_at() -> None:
    """The worker dies after its answer was sent to the store with the settlement, which was lost: see the journal."""
    async with Flow({"agent": an_agent()}, model=ScriptedModel("x")) as flow:
        row = await flow.outcome(await flow.dispatch("go"))
    now = flow.clock.now()
    answer = AnswerEntry.of(says("done"))
    finished = [JournalLine(1, row.id, InputEntry("go")), JournalLine(2, row.id, answer)]
    spent = replace(row, attempts=10, deadline_at=now, abort_requested_at=now, status="running")

    assert isinstance(judge(spent, finished, AgentLimits(), now), Completed)
    assert isinstance(judge(spent, finished[:1], AgentLimits(), now), Aborted)
    exhausted = judge(replace(spent, abort_requested_at=None), finished[:1], AgentLimits(), now)
    assert isinstance(exhausted, Failed)
    assert exhausted.code == "attempts_exhausted"
    late = judge(replace(spent, abort_requested_at=None, attempts=0), finished[:1], AgentLimits(), now)
    assert isinstance(late, Failed)
    assert late.code == "deadline"


async def test_user_code_does_not_run_once_the_attempts_are_used_up() -> None:
    """An agent that kills its process cannot do so for ever."""
    built: list[int] = []
    bench = Bench()

    def initialize() -> dict[str, object]:
        built.append(1)
        return {"tools": [bench.tool]}

    agent = create_agent(initialize, limits={"max_attempts": 2})
    async with Flow({"agent": agent}, model=ScriptedModel(then=lambda request: Held("x"))) as flow:
        receipt = await flow.dispatch("go")
        for count in (1, 2):
            await flow.until(lambda count=count: len(flow.model_calls) == count)
            await flow.take_over()
        row = await flow.outcome(receipt)

        assert row.error is not None
        assert (row.status, row.error.code) == ("failed", "attempts_exhausted")
        assert len(built) == 2


@pytest.mark.parametrize(("own", "asked"), [(None, 99), (7, 7)])
async def test_an_answer_may_be_as_long_as_the_agent_says_or_else_the_settings(own: int | None, asked: int) -> None:
    settings = Settings(worker=FAST, models=ModelsSettings(anthropic=ModelSettings(max_tokens=99)))
    agent = create_agent(lambda: {"instructions": "Be brief.", "max_tokens": own})

    async with Flow({"support": agent}, model=ScriptedModel("Hi."), settings=settings) as flow:
        await flow.outcome(await flow.receive("standard", "hello"))

        assert [call.max_tokens for call in flow.model_calls] == [asked]
