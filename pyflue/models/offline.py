"""A model without a network or a key, for demos and for tests of agents. The same request gives the same answer.

``offline/echo`` repeats what it was told: ``You said: …``, followed by what its tools answered; of a signal it repeats
the text without the tag around it. It calls tools on request only: each ``[tool:NAME]`` or
``[tool:NAME {"argument": "value"}]`` in the text becomes one call. All calls named in one text are asked for together.

``offline/demo`` does the same, and also calls a tool whose name merely appears in the text, with arguments made up
from the tool's schema: the text itself where a string is required, the first number in it where a number is.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from pyflue.messages import (
    AnswerPart,
    AssistantMessage,
    Message,
    ModelAnswer,
    TextPart,
    ToolResultPart,
    ToolSpec,
    ToolUsePart,
    Usage,
    UserMessage,
)
from pyflue.models.protocol import ModelRequest

OFFLINE_MODELS: Final = ("echo", "demo")
_DIRECTIVE: Final = re.compile(r"\[tool:([A-Za-z0-9_.-]+)\s*")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
_WORD: Final = re.compile(r"\s*\S+\s*")
_ESCAPED: Final = re.compile(r"<\\(?=/?signal)", re.IGNORECASE)
_SIGNAL: Final = re.compile(r"<signal [^>]*>\n(.*)\n</signal>", re.DOTALL)


class Call(Struct, frozen=True):
    """A tool call the text asks for; ``arguments`` is a JSON object."""

    name: str
    arguments: bytes


class OfflineModel:
    """Answers from the request alone. See the module's docstring for what it understands."""

    async def answer(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelAnswer:
        await asyncio.sleep(0)  # a call can be cancelled, as with a real provider
        window = _open_messages(request.messages)
        texts, made = _texts(window), _calls_made(window)
        wanted = [call for text in texts for call in _wanted(request, text)] if request.tools else []
        if missing := wanted[len(made) :]:
            return _answer(request, _tool_uses(request, missing), "tool_use")
        spoken = _final_text(texts, made, window)
        if on_text is not None:
            for word in _WORD.findall(spoken):
                on_text(word)
        return _answer(request, (TextPart(spoken),), "end_turn")

    async def close(self) -> None:
        """Do nothing: there is no connection."""


def _open_messages(messages: Sequence[Message]) -> Sequence[Message]:
    """Return what came after the last answer that asked for no tool."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if isinstance(message, AssistantMessage) and not any(isinstance(part, ToolUsePart) for part in message.content):
            return messages[place + 1 :]
    return messages


def _texts(messages: Sequence[Message]) -> list[str]:
    users = [message for message in messages if isinstance(message, UserMessage)]
    return [_inner(part.text) for message in users for part in message.content if isinstance(part, TextPart)]


def _inner(text: str) -> str:
    """Take a signal out of the tag it is given to a model in (``session/context.py``)."""
    signal = _SIGNAL.fullmatch(text)
    return text if signal is None else _ESCAPED.sub("<", signal[1])


def _calls_made(messages: Sequence[Message]) -> list[ToolUsePart]:
    answers = [message for message in messages if isinstance(message, AssistantMessage)]
    return [part for message in answers for part in message.content if isinstance(part, ToolUsePart)]


def _wanted(request: ModelRequest, text: str) -> list[Call]:
    calls = list(_directives(text))
    if calls or request.model != "demo":
        return calls
    return [Call(tool.name, _made_up(tool, text)) for tool in request.tools if _mentions(text, tool.name)]


def _directives(text: str) -> Iterator[Call]:
    """Yield the calls written as ``[tool:NAME {json}]``; one whose JSON is not an object is left alone."""
    for match in _DIRECTIVE.finditer(text):
        start = match.end()
        if text.startswith("]", start):
            yield Call(match[1], b"{}")
        elif text.startswith("{", start):
            try:
                _, end = json.JSONDecoder().raw_decode(text, start)
            except json.JSONDecodeError:
                continue
            if text[end:].lstrip().startswith("]"):
                yield Call(match[1], text[start:end].encode())


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


class _Property(Struct, frozen=True):
    type: str | list[str] = "string"


class _Schema(Struct, frozen=True):
    properties: dict[str, _Property] = {}
    required: list[str] = []


def _made_up(tool: ToolSpec, text: str) -> bytes:
    schema = msgspec.json.decode(tool.input_schema, type=_Schema)
    number = _NUMBER.search(text)
    values: dict[str, object] = {}
    for name in schema.required:
        kind = schema.properties.get(name, _Property()).type
        match kind if isinstance(kind, str) else next(iter(kind), "string"):
            case "integer":
                values[name] = int(float(number[0])) if number else 1
            case "number":
                values[name] = float(number[0]) if number else 1.0
            case "boolean":
                values[name] = True
            case "array":
                values[name] = []
            case "object":
                values[name] = {}
            case _:
                values[name] = text
    return msgspec.json.encode(values)


def _tool_uses(request: ModelRequest, calls: Sequence[Call]) -> tuple[AnswerPart, ...]:
    """Give each call an id that a repeated request repeats, and that no other request of the conversation has."""
    digest = hashlib.blake2b(msgspec.json.encode(request.messages), digest_size=9).hexdigest()
    return tuple(
        ToolUsePart(f"toolu_{digest}{place:02d}", call.name, Raw(call.arguments)) for place, call in enumerate(calls)
    )


def _final_text(texts: Sequence[str], made: Sequence[ToolUsePart], window: Sequence[Message]) -> str:
    names = {call.id: call.name for call in made}
    users = [message for message in window if isinstance(message, UserMessage)]
    results = [part for message in users for part in message.content if isinstance(part, ToolResultPart)]
    said = "\n".join(texts)
    lines = [f"You said: {said}" if said else "You said nothing."]
    for result in results:
        verb = "failed" if result.is_error else "answered"
        lines.append(f"{names.get(result.tool_use_id, 'A tool')} {verb}: {result.content}")
    return "\n".join(lines)


def _answer(request: ModelRequest, content: tuple[AnswerPart, ...], stop_reason: str) -> ModelAnswer:
    """Count a word as a token, so that usage is repeatable too."""
    heard = len(request.system.split()) + sum(
        len(msgspec.json.encode(message.content).split()) for message in request.messages
    )
    said = len(msgspec.json.encode(content).split())
    return ModelAnswer(content, stop_reason, f"offline/{request.model}", Usage(heard, said))
