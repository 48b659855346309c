"""From a ``ModelRequest`` to the bytes of a Messages API request: a pure function.

The body is written here rather than by the SDK so that its bytes are ours to promise: the same request gives the
same bytes in every process, tool input goes back exactly as the model wrote it, and ``messages`` comes last, so
the body of a later turn starts with the bytes of the earlier one (cache marks apart).

Cache marks. A prompt is cached up to each block that carries ``cache_control``; four are allowed. We mark the last
tool and the system text, which seldom change, and the last block of the newest message, so that the next turn finds
everything up to here in the cache. The mark on the user message before that one lets the provider find the cache
written by the previous call even when a turn added more blocks than its look-back of twenty reaches. Marks move from
turn to turn; they are not part of what the provider compares, so moving them keeps the prefix valid.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Raw, Struct

from pyflue.messages import (
    AnswerPart,
    AssistantMessage,
    Message,
    OtherPart,
    RedactedThinkingPart,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolUsePart,
    UserPart,
)
from pyflue.models.protocol import ModelRequest, ThinkingLevel

_MARK: Final = b',"cache_control":{"type":"ephemeral"}}'
_encode = msgspec.json.encode

_BUDGETS: Final[dict[ThinkingLevel, int]] = {
    "minimal": 1_024,
    "low": 2_048,
    "medium": 8_192,
    "high": 16_384,
    "xhigh": 32_768,
}
"""Tokens of reasoning for models that take a budget; 1,024 is the least the API accepts."""

_EFFORTS: Final[dict[ThinkingLevel, str]] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
}

_TAKES_BUDGET: Final = re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:$|[-@]\d{8}|-v\d))")
"""Models before 4.6 think on a budget; later ones decide for themselves and take an effort (SDK 2.12, model list)."""


class _Thinking(Struct, frozen=True, omit_defaults=True):
    type: str
    budget_tokens: int = 0


class _OutputConfig(Struct, frozen=True):
    effort: str


class _Body(Struct, frozen=True, omit_defaults=True):
    """The request, fields in the order they are written. Left-out fields are absent, never null."""

    model: str
    max_tokens: int
    stream: bool
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    tools: tuple[Raw, ...] = ()
    system: tuple[Raw, ...] = ()
    messages: tuple[Raw, ...] = ()


def request_body(request: ModelRequest) -> bytes:
    """Write the JSON body of a streaming ``POST /v1/messages``."""
    budget = _budget(request)
    return _encode(
        _Body(
            request.model,
            request.max_tokens + budget,  # a budget counts against max_tokens; the answer keeps what was asked for
            True,
            _thinking(request, budget),
            _effort(request, budget),
            _tools(request),
            (Raw(_marked(_encode(TextPart(request.system)))),) if request.system.strip() else (),
            _messages(request.messages),
        )
    )


def _budget(request: ModelRequest) -> int:
    return _BUDGETS.get(request.thinking_level, 0) if _TAKES_BUDGET.match(request.model) else 0


def _thinking(request: ModelRequest, budget: int) -> _Thinking | None:
    if request.thinking_level == "off":
        return None
    return _Thinking("enabled", budget) if budget else _Thinking("adaptive")


def _effort(request: ModelRequest, budget: int) -> _OutputConfig | None:
    if request.thinking_level == "off" or budget:
        return None
    return _OutputConfig(_EFFORTS[request.thinking_level])


def _tools(request: ModelRequest) -> tuple[Raw, ...]:
    tools = [_encode(tool) for tool in request.tools]
    if tools:
        tools[-1] = _marked(tools[-1])
    return tuple(map(Raw, tools))


def _messages(messages: tuple[Message, ...]) -> tuple[Raw, ...]:
    """Write the messages, leaving out blank texts and empty messages, which the API refuses."""
    said = [(message, parts) for message in messages if (parts := _sendable(message))]
    marked = _marked_places([message for message, _ in said])
    return tuple(Raw(_message(message, parts, mark=place in marked)) for place, (message, parts) in enumerate(said))


def _marked_places(messages: list[Message]) -> set[int]:
    """Return the newest message, and the user message before it that the previous call ended with."""
    last = len(messages) - 1
    users = [place for place in range(last) if not isinstance(messages[place], AssistantMessage)]
    return {last, *users[-1:]}


def _sendable(message: Message) -> tuple[UserPart | AnswerPart, ...]:
    parts: tuple[UserPart | AnswerPart, ...] = message.content
    for part in parts:
        if isinstance(part, TextPart) and not part.text.strip():
            return tuple(part for part in parts if not isinstance(part, TextPart) or part.text.strip())
    return parts


def _message(message: Message, parts: tuple[UserPart | AnswerPart, ...], *, mark: bool) -> bytes:
    blocks = [_block(part) for part in parts]
    if mark:
        place = _markable(parts)
        if place is not None:
            blocks[place] = _marked(blocks[place])
    role = b"assistant" if isinstance(message, AssistantMessage) else b"user"
    return b'{"role":"%b","content":[%b]}' % (role, b",".join(blocks))


def _block(part: UserPart | AnswerPart) -> bytes:
    return bytes(part.raw) if isinstance(part, OtherPart) else _encode(part)


def _markable(parts: tuple[UserPart | AnswerPart, ...]) -> int | None:
    """Return the last part that may carry a mark; reasoning may not, and of unknown parts nobody can say."""
    for place in range(len(parts) - 1, -1, -1):
        match parts[place]:
            case TextPart() | ToolUsePart() | ToolResultPart():
                return place
            case ThinkingPart() | RedactedThinkingPart() | OtherPart():
                continue
    return None


def _marked(block: bytes) -> bytes:
    return block[:-1] + _MARK
