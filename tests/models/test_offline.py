"""The model without a network."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from pyflue.entries import InputEntry
from pyflue.messages import AssistantMessage, Message, TextPart, ToolResultPart, ToolSpec, ToolUsePart, UserMessage
from pyflue.models.offline import OfflineModel
from pyflue.models.protocol import ModelRequest
from pyflue.session.context import render_input

SCHEMA = b"""{"type": "object", "required": ["query", "limit", "exact"], "properties": {
    "query": {"type": "string"}, "limit": {"type": ["integer", "null"]}, "exact": {"type": "boolean"},
    "page": {"type": "integer"}}}"""
TOOLS = (ToolSpec("lookup", "Look it up", Raw(SCHEMA)), ToolSpec("clock", "Tell the time", Raw(b'{"type":"object"}')))


def said(text: str) -> UserMessage:
    return UserMessage((TextPart(text),))


def ask(*messages: Message, model: str = "echo", tools: tuple[ToolSpec, ...] = TOOLS) -> ModelRequest:
    return ModelRequest(model, "Be brief.", messages, tools)


async def called(request: ModelRequest) -> list[tuple[str, object]]:
    answer = await OfflineModel().answer(request)
    assert answer.stop_reason == ("tool_use" if answer.tool_calls else "end_turn")
    return [(call.name, json.loads(bytes(call.input))) for call in answer.tool_calls]


@pytest.mark.parametrize("model", ["echo", "demo"])
async def test_it_repeats_what_it_was_told(model: str) -> None:
    seen: list[str] = []

    answer = await OfflineModel().answer(ask(said("good morning, world"), model=model), seen.append)

    assert answer.text == "You said: good morning, world"
    assert "".join(seen) == answer.text
    assert len(seen) > 1
    assert answer.model == f"offline/{model}"


async def test_of_a_signal_it_repeats_the_text_without_the_tag() -> None:
    entry = InputEntry("a </signal> b", role="signal", type="message", attributes={"sender": "a>b"})

    answer = await OfflineModel().answer(ask(said(render_input(entry))))

    assert answer.text == "You said: a </signal> b"


async def test_the_same_request_gives_the_same_answer() -> None:
    request = ask(said("[tool:clock]"))

    first, second = await OfflineModel().answer(request), await OfflineModel().answer(request)
    assert [call.id for call in first.tool_calls] == [call.id for call in second.tool_calls]
    assert first.usage == second.usage
    assert first.usage.input_tokens > 0


async def test_directives_become_tool_calls_all_at_once() -> None:
    text = 'Please [tool:lookup {"query": "a ] b", "limit": 2}] and then [tool:clock]'

    assert await called(ask(said(text))) == [("lookup", {"query": "a ] b", "limit": 2}), ("clock", {})]


@pytest.mark.parametrize(
    "text", ["[tool:lookup {broken]", "[tool:lookup {}", "[tool: lookup]", "tool:lookup", "[tool:lookup 7]"]
)
async def test_what_is_no_directive_is_only_text(text: str) -> None:
    assert await called(ask(said(text))) == []


async def test_without_tools_nothing_is_called() -> None:
    assert await called(ask(said("[tool:clock]"), tools=())) == []


async def test_a_tool_is_called_once_and_its_result_is_told() -> None:
    history = [said("[tool:lookup] please")]
    first = await OfflineModel().answer(ask(*history))
    result = ToolResultPart(first.tool_calls[0].id, "42")

    answer = await OfflineModel().answer(ask(*history, AssistantMessage(first.content), UserMessage((result,))))

    assert answer.text == "You said: [tool:lookup] please\nlookup answered: 42"


async def test_a_failed_tool_is_told_as_failed() -> None:
    call = ToolUsePart("t1", "clock", Raw(b"{}"))
    result = UserMessage((ToolResultPart("t1", "no battery", is_error=True),))

    answer = await OfflineModel().answer(ask(said("[tool:clock]"), AssistantMessage((call,)), result))

    assert answer.text.endswith("clock failed: no battery")


async def test_a_message_that_joins_after_a_tool_call_is_obeyed_and_repeated_too() -> None:
    call = ToolUsePart("t1", "clock", Raw(b"{}"))
    joined = UserMessage((ToolResultPart("t1", "noon"), TextPart('and [tool:lookup {"query": "x"}]')))
    history = (said("[tool:clock]"), AssistantMessage((call,)), joined)

    assert await called(ask(*history)) == [("lookup", {"query": "x"})]


async def test_earlier_turns_are_over() -> None:
    history = (said("[tool:clock]"), AssistantMessage((TextPart("It is noon."),)), said("thanks"))

    answer = await OfflineModel().answer(ask(*history))

    assert answer.text == "You said: thanks"


async def test_calls_of_different_turns_have_different_ids() -> None:
    first = await OfflineModel().answer(ask(said("[tool:clock]")))
    later = (said("[tool:clock]"), AssistantMessage((TextPart("Noon."),)), said("[tool:clock]"))

    second = await OfflineModel().answer(ask(*later))

    assert first.tool_calls[0].id != second.tool_calls[0].id


async def test_the_demo_calls_a_tool_named_in_the_text_with_arguments_made_up_from_its_schema() -> None:
    expected = {"query": "use lookup for 7 cats", "limit": 7, "exact": True}

    assert await called(ask(said("use lookup for 7 cats"), model="demo")) == [("lookup", expected)]
    assert await called(ask(said("use lookup for 7 cats"), model="echo")) == []
    assert await called(ask(said("relookup"), model="demo")) == []
