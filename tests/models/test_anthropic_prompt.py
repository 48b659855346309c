"""The bytes of a request."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from msgspec import Raw
from pydantic import TypeAdapter, ValidationError

from pyflue.messages import (
    AssistantMessage,
    Message,
    OtherPart,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolSpec,
    ToolUsePart,
    UserMessage,
)
from pyflue.models.anthropic_prompt import request_body
from pyflue.models.protocol import ModelRequest, ThinkingLevel

MARK = b',"cache_control":{"type":"ephemeral"}'
SDK_BODY = TypeAdapter(MessageCreateParamsStreaming)
TOOLS = (
    ToolSpec("lookup", "Look it up", Raw(b'{"type":"object","properties":{"q":{"type":"string"}}}')),
    ToolSpec("note", "Write it down", Raw(b'{"type":"object"}')),
)
CONVERSATION: tuple[Message, ...] = (
    UserMessage((TextPart("What is in the box?"),)),
    AssistantMessage(
        (
            ThinkingPart("I should look.", "c2lnbmF0dXJl"),
            RedactedThinkingPart("b3BhcXVl"),
            TextPart("Let me look."),
            ToolUsePart("toolu_1", "lookup", Raw('{"z": 1,  "a":"\\u00e9é", "n": 1.0}'.encode())),
        )
    ),
    UserMessage((ToolResultPart("toolu_1", "A cat."),)),
    AssistantMessage((TextPart("A cat."),)),
    UserMessage((TextPart("Alive?"),)),
    AssistantMessage((OtherPart(Raw(b'{"type": "poem", "lines":"both"}')), TextPart("Both."))),
    UserMessage((TextPart("Open it."),)),
)


def request(messages: tuple[Message, ...] = CONVERSATION, **changes: Any) -> ModelRequest:
    return msgspec.structs.replace(ModelRequest("claude-x", "Be brief.", messages, TOOLS), **changes)


def decoded(body: bytes) -> dict[str, Any]:
    return json.loads(body)


def test_a_conversation_keeps_its_shape_roles_blocks_and_order() -> None:
    body = decoded(request_body(request()).replace(MARK, b""))

    assert body["model"] == "claude-x"
    assert body["stream"] is True
    assert body["system"] == [{"type": "text", "text": "Be brief."}]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 3 + ["user"]
    assert body["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "I should look.",
        "signature": "c2lnbmF0dXJl",
    }
    assert body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "A cat."}]


def test_tool_input_and_unknown_blocks_go_back_byte_for_byte() -> None:
    body = request_body(request())

    assert '"input":{"z": 1,  "a":"\\u00e9é", "n": 1.0}'.encode() in body
    assert b'{"type": "poem", "lines":"both"}' in body


def test_the_same_entries_give_the_same_bytes_after_they_were_stored_and_read_back() -> None:
    stored = msgspec.json.encode(CONVERSATION)

    rebuilt = msgspec.json.decode(stored, type=tuple[Message, ...])

    assert request_body(request(rebuilt)) == request_body(request())


@pytest.mark.parametrize("turn", range(1, len(CONVERSATION)))
def test_the_next_request_starts_with_the_bytes_of_this_one_apart_from_cache_marks(turn: int) -> None:
    this = request_body(request(CONVERSATION[:turn])).replace(MARK, b"")
    following = request_body(request(CONVERSATION[: turn + 1])).replace(MARK, b"")

    assert following.startswith(this.removesuffix(b"]}"))


def test_what_changes_from_turn_to_turn_comes_last() -> None:
    body = request_body(request(thinking_level="high"))

    assert list(decoded(body)) == [
        "model",
        "max_tokens",
        "stream",
        "thinking",
        "output_config",
        "tools",
        "system",
        "messages",
    ]


def test_cache_marks_are_on_the_last_tool_the_system_text_and_the_two_newest_user_messages() -> None:
    body = decoded(request_body(request()))

    marked = [
        (place, message["role"])
        for place, message in enumerate(body["messages"])
        if "cache_control" in message["content"][-1]
    ]
    assert marked == [(4, "user"), (6, "user")]
    assert [("cache_control" in tool) for tool in body["tools"]] == [False, True]
    assert "cache_control" in body["system"][0]


@pytest.mark.parametrize("turn", range(1, len(CONVERSATION) + 1))
def test_there_are_never_more_than_the_four_marks_the_api_allows(turn: int) -> None:
    assert request_body(request(CONVERSATION[:turn])).count(MARK) <= 4


def test_a_mark_is_never_put_on_reasoning() -> None:
    thoughts = AssistantMessage((TextPart("So far"), ThinkingPart("hm", "sig")))

    body = decoded(request_body(request((UserMessage((TextPart("go"),)), thoughts))))

    blocks = body["messages"][1]["content"]
    assert "cache_control" in blocks[0]
    assert "cache_control" not in blocks[1]


def test_blank_texts_and_empty_messages_are_left_out_because_the_api_refuses_them() -> None:
    messages = (
        UserMessage((TextPart("hello"), TextPart("  \n"))),
        AssistantMessage(()),
        AssistantMessage((TextPart(""),)),
        UserMessage((TextPart("still there?"),)),
    )

    body = decoded(request_body(request(messages, system="  ")).replace(MARK, b""))

    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "user", "content": [{"type": "text", "text": "still there?"}]},
    ]
    assert "system" not in body


def test_without_tools_there_is_no_tools_field() -> None:
    assert "tools" not in decoded(request_body(request(tools=())))


def test_no_thinking_sends_nothing_about_thinking() -> None:
    body = decoded(request_body(request()))

    assert "thinking" not in body
    assert "output_config" not in body
    assert body["max_tokens"] == 8192


@pytest.mark.parametrize(
    ("level", "effort"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "xhigh")],
)
@pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-sonnet-5", "claude-opus-4-7", "a-gateway-name"])
def test_newer_models_think_as_they_see_fit_with_an_effort(model: str, level: ThinkingLevel, effort: str) -> None:
    body = decoded(request_body(request(model=model, thinking_level=level)))

    assert body["thinking"] == {"type": "adaptive"}
    assert body["output_config"] == {"effort": effort}


@pytest.mark.parametrize(
    "model",
    [
        "claude-sonnet-4-5",
        "claude-haiku-4-5-20251001",
        "claude-opus-4-5-20251101",
        "claude-opus-4-1-20250805",
        "claude-sonnet-4-20250514",
        "claude-sonnet-4-0",
        "claude-3-7-sonnet-20250219",
    ],
)
def test_older_models_get_a_budget_on_top_of_the_answers_tokens(model: str) -> None:
    body = decoded(request_body(request(model=model, thinking_level="medium", max_tokens=1_000)))

    assert body["thinking"] == {"type": "enabled", "budget_tokens": 8192}
    assert body["max_tokens"] == 9_192
    assert "output_config" not in body


@pytest.mark.parametrize("level", ["off", "minimal", "low", "medium", "high", "xhigh"])
@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-sonnet-5"])
def test_the_body_has_the_types_the_sdk_declares(model: str, level: ThinkingLevel) -> None:
    conversation = tuple(
        msgspec.structs.replace(
            message, content=tuple(part for part in message.content if not isinstance(part, OtherPart))
        )
        for message in CONVERSATION
    )
    body = decoded(request_body(request(conversation, model=model, thinking_level=level)))

    consume(SDK_BODY.validate_python(body))


def consume(value: object) -> None:
    """Walk through what pydantic only checks when it is iterated."""
    if isinstance(value, dict):
        for inner in value.values():
            consume(inner)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for inner in value:
            consume(inner)


def test_the_check_against_the_sdks_types_can_fail() -> None:
    body = decoded(request_body(request()))
    body["messages"][1]["content"][0]["signature"] = 7

    with pytest.raises(ValidationError):
        consume(SDK_BODY.validate_python(body))
