"""The turn loop: ask the model, run the tools it asks for, until it gives its final answer.

The loop holds no state of its own. What comes next is read from the journal (``resume.next_step``), so an attempt
that takes over from a dead one enters at the same place as one that goes on.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from math import isinf
from typing import Final, assert_never

from pyflue.entries import AnswerEntry, JournalLine
from pyflue.events import PREVIEW_CHARACTERS, TurnAnswered
from pyflue.messages import ModelAnswer, ToolSpec
from pyflue.models.protocol import ModelFailure, ModelRequest
from pyflue.observers.logs import log
from pyflue.session.backoff import pause_before_retry
from pyflue.session.context import build_messages
from pyflue.session.resume import AskModel, Finished, RunTools, WriteInput, continues, next_step, tally
from pyflue.session.toolcalls import REPLY_TOOL, run_tool_calls
from pyflue.session.turn import Completed, Failed, Parked, Turn, Verdict

DEFAULT_MAX_TOKENS: Final = 8_192
DEADLINE: Final = Failed("deadline", "Its wall-clock budget is used up.")


async def work(turn: Turn) -> Verdict:
    """Take one dispatch from where its journal says it stands to a verdict.

    Raises:
        LeaseLost: the session is another worker's now; what was appended stays.
        HandBack: this process is stopping; the dispatch goes on elsewhere.
    """
    while True:
        lines = turn.lines
        step = next_step(lines)
        match step:
            case Finished(answer):
                return Completed(answer, ())
            case RunTools(calls):
                await run_tool_calls(turn, calls)
            case AskModel() | WriteInput():
                turn.control.boundary()
                if over := over_limit(turn, lines):
                    return over
                verdict = await take_turn(turn, lines)
                if verdict is not None:
                    return verdict
            case _:
                assert_never(step)


async def take_turn(turn: Turn, lines: list[JournalLine]) -> Verdict | None:
    """Ask the model once; record what it says unless it is final, in which case the settlement records it."""
    began = turn.clock.monotonic()
    number = tally(lines).turns + 1
    timer = asyncio.timeout(seconds_left(turn))
    try:
        async with timer:
            answer = await ask(turn)
    except TimeoutError:
        if not timer.expired():
            raise
        return DEADLINE
    except ModelFailure as failure:
        log("model.failed", level="warning", reason=failure.reason_code, kind=failure.kind, detail=failure.detail)
        return verdict_of(turn, failure)
    duration_ms = round((turn.clock.monotonic() - began) * 1000)
    if not continues(answer):
        return Completed(answer, (AnswerEntry.of(answer),), duration_ms)
    event = answered(answer, number, turn.journal.head + 1, duration_ms)
    await turn.journal.append(turn.dispatch.id, (AnswerEntry.of(answer),), (event,))
    return None


async def ask(turn: Turn) -> ModelAnswer:
    """Make one model call from the journal as it stands."""
    turn.liveness.check()
    request = ModelRequest(
        model=turn.model_id,
        system=turn.agent.instructions or "",
        messages=build_messages(turn.journal.lines),
        tools=tool_specs(turn),
        max_tokens=turn.agent.max_tokens or DEFAULT_MAX_TOKENS,
        thinking_level=turn.agent.thinking_level or "off",
    )
    return await turn.model.answer(request)


def tool_specs(turn: Turn) -> tuple[ToolSpec, ...]:
    """Return the tools the model is told of; ``reply`` only where there is somewhere to reply to."""
    specs = tuple(tool.spec for tool in turn.agent.tools)
    return specs if turn.draft is None else (*specs, REPLY_TOOL)


def answered(answer: ModelAnswer, number: int, seq: int, duration_ms: int) -> TurnAnswered:
    """Describe an answer for observers, without its content beyond a preview."""
    return TurnAnswered(
        turn=number,
        seq=seq,
        model=answer.model,
        stop_reason=answer.stop_reason,
        usage=answer.usage,
        preview=answer.text[:PREVIEW_CHARACTERS],
        tool_calls=tuple(call.name for call in answer.tool_calls),
        duration_ms=duration_ms,
    )


def over_limit(turn: Turn, lines: list[JournalLine]) -> Failed | None:
    """Check the agent's limits before another model call; None when there is room for one."""
    limits, used = turn.agent.limits, tally(lines)
    if used.turns >= limits.max_turns:
        return Failed("turn_limit", f"It took {used.turns} turns, and max_turns is {limits.max_turns}.")
    if used.tool_calls > limits.max_tool_calls:
        return Failed(
            "tool_call_limit", f"It asked for {used.tool_calls} tool calls; the limit is {limits.max_tool_calls}."
        )
    if limits.max_tokens_total is not None and used.usage.total_tokens >= limits.max_tokens_total:
        return Failed(
            "token_limit", f"It used {used.usage.total_tokens} tokens; the limit is {limits.max_tokens_total}."
        )
    return DEADLINE if turn.clock.monotonic() >= turn.deadline else None


def seconds_left(turn: Turn) -> float | None:
    """Return how long a model call may take: what is left of the dispatch's wall clock; None without a deadline."""
    return None if isinf(turn.deadline) else turn.deadline - turn.clock.monotonic()


def verdict_of(turn: Turn, failure: ModelFailure) -> Verdict:
    """Decide what a failed model call means for the dispatch."""
    if failure.kind in {"rate_limited", "overloaded"}:
        asked = failure.retry_after or timedelta(seconds=turn.retry.rate_limit_delay)
        delay = max(asked, timedelta(seconds=turn.retry.first_delay))  # these cost no attempt: never a busy loop
        return Parked(failure.reason_code, delay, refund=True, message=failure.what)
    if failure.kind == "transient":
        delay = pause_before_retry(turn.dispatch.id, turn.dispatch.attempts, turn.retry)
        return Parked(failure.reason_code, delay, refund=False, message=failure.what)
    return Failed(failure.reason_code, str(failure))  # context_overflow, fatal
