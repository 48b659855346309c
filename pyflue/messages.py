"""What is said to a model and what it says back, in the provider's own shapes.

The tags and field names are those of the Anthropic Messages API (content blocks), so a conversation is stored
as the provider's message array and replayed without translation: no flattening to ``role: text`` lines, and
the bytes of a prompt prefix stay the same across a resume, which is what prompt caching needs. Tool input is
kept as the raw JSON the model wrote, so key order survives.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw, Struct

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded"
]
"""Why a model stopped, as the Messages API names it. An answer always has one; a stream that ends without is a failure."""


class TextPart(Struct, frozen=True, tag="text"):
    text: str


class ThinkingPart(Struct, frozen=True, tag="thinking"):
    """Reasoning with the provider's signature; it must be passed back byte for byte."""

    thinking: str
    signature: str


class RedactedThinkingPart(Struct, frozen=True, tag="redacted_thinking"):
    data: str


class ToolUsePart(Struct, frozen=True, tag="tool_use"):
    """A tool call the model asks for. ``input`` is the JSON text of its arguments, exactly as streamed."""

    id: str
    name: str
    input: Raw


class OtherPart(Struct, frozen=True, tag="other"):
    """A content block this release has no type for, kept as raw JSON and passed back unchanged."""

    raw: Raw


AnswerPart = TextPart | ThinkingPart | RedactedThinkingPart | ToolUsePart | OtherPart


class ToolResultPart(Struct, frozen=True, tag="tool_result", omit_defaults=True):
    """What a tool call gave: text, with ``is_error`` when the model should treat it as a failure."""

    tool_use_id: str
    content: str
    is_error: bool = False


UserPart = TextPart | ToolResultPart


class UserMessage(Struct, frozen=True, tag="user", tag_field="role"):
    content: tuple[UserPart, ...]


class AssistantMessage(Struct, frozen=True, tag="assistant", tag_field="role"):
    content: tuple[AnswerPart, ...]


Message = UserMessage | AssistantMessage


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens of one model call, or of several added up. ``input_tokens`` leaves out what was cached, as the API does."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_input_tokens + other.cache_read_input_tokens,
            self.cache_creation_input_tokens + other.cache_creation_input_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Return every token paid for or read, cached ones included."""
        return self.input_tokens + self.output_tokens + self.cache_read_input_tokens + self.cache_creation_input_tokens


class ToolSpec(Struct, frozen=True):
    """A tool as the model is told of it. ``input_schema`` is a JSON Schema object, as raw JSON."""

    name: str
    description: str
    input_schema: Raw


class ModelAnswer(Struct, frozen=True):
    """One complete answer of a model: its parts in order, why it stopped, and what it cost."""

    content: tuple[AnswerPart, ...]
    stop_reason: StopReason | str
    model: str
    usage: Usage = Usage()
    response_id: str = ""

    @property
    def text(self) -> str:
        """Return the text parts joined; empty when the answer holds only tool calls."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolUsePart, ...]:
        """Return the tool calls of this answer, in the order the model asked for them."""
        return tuple(part for part in self.content if isinstance(part, ToolUsePart))


def encode(value: Struct) -> bytes:
    """Write a Struct as JSON; the same value always gives the same bytes."""
    return msgspec.json.encode(value)
