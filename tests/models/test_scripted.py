"""The scripted model of the test kit."""

from __future__ import annotations

import asyncio

import pytest

from pyflue.messages import ModelAnswer, TextPart, UserMessage
from pyflue.models.protocol import ModelFailure, ModelRequest
from pyflue.models.retry import connection_lost
from pyflue.testing.models import Broken, Held, ScriptedModel, calls, says

REQUEST = ModelRequest("any", "", (UserMessage((TextPart("hello"),)),))


async def test_steps_are_played_in_order_and_requests_are_kept() -> None:
    model = ScriptedModel("one", says("two"), calls(("lookup", {"q": 1}), text="wait"))

    answers = [await model.answer(REQUEST) for _ in range(3)]

    assert [answer.text for answer in answers] == ["one", "two", "wait"]
    assert [bytes(call.input) for call in answers[2].tool_calls] == [b'{"q":1}']
    assert model.requests == [REQUEST] * 3
    assert model.remaining == 0


async def test_call_ids_are_unique_over_the_script_unless_given() -> None:
    model = ScriptedModel(calls(("a", {}), ("b", {})), calls(("a", {})), calls(("a", {}, "mine")))

    ids = [call.id for _ in range(3) for call in (await model.answer(REQUEST)).tool_calls]

    assert len(set(ids)) == 4
    assert ids[-1] == "mine"


async def test_a_used_up_script_fails_the_call_unless_it_says_what_comes_then() -> None:
    with pytest.raises(ModelFailure) as failure:
        await ScriptedModel().answer(REQUEST)

    assert (failure.value.kind, failure.value.reason_code) == ("fatal", "script_exhausted")
    assert (await ScriptedModel(then="always").answer(REQUEST)).text == "always"


async def test_a_function_may_decide_and_may_wait() -> None:
    async def later(request: ModelRequest) -> ModelAnswer:
        await asyncio.sleep(0)
        return says(f"asked for {request.model}")

    model = ScriptedModel(lambda request: f"plain {request.model}", later)

    assert [(await model.answer(REQUEST)).text for _ in range(2)] == ["plain any", "asked for any"]


async def test_a_failure_is_raised_and_a_broken_answer_streams_first() -> None:
    model = ScriptedModel(connection_lost("cut"), Broken("half an answer", connection_lost("cut")))
    seen: list[str] = []

    for _ in range(2):
        with pytest.raises(ModelFailure):
            await model.answer(REQUEST, seen.append)

    assert "".join(seen) == "half an answer"


async def test_a_held_answer_waits_until_it_is_released() -> None:
    held = Held("done")
    call = asyncio.create_task(ScriptedModel(held).answer(REQUEST))
    await held.reached.wait()
    assert not call.done()

    held.release.set()

    assert (await call).text == "done"


async def test_a_held_answer_can_be_cancelled() -> None:
    held = Held("done")
    call = asyncio.create_task(ScriptedModel(held).answer(REQUEST))
    await held.reached.wait()

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert held.cancelled
