"""A model whose answers a test writes down beforehand, in this process."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from msgspec import Raw

from pyflue.messages import AnswerPart, ModelAnswer, TextPart, ToolUsePart, Usage
from pyflue.models.protocol import ModelFailure, ModelRequest

_WORD: Final = re.compile(r"\s*\S+\s*")


class Held:
    """A step that waits: ``reached`` is set when the model is asked, and it answers ``step`` once ``release`` is set.

    While it waits the call can be cancelled; ``cancelled`` tells whether it was.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = False


class Broken:
    """A step that streams ``text`` and then fails, like a connection lost in the middle of an answer."""

    def __init__(self, text: str, failure: ModelFailure) -> None:
        self.text = text
        self.failure = failure


Step = str | ModelAnswer | ModelFailure | Held | Broken | Callable[[ModelRequest], "Step | Awaitable[Step]"]
"""What the scripted model does when it is asked: say a text, give an answer, fail, wait, or what a function decides."""

Arguments = Mapping[str, object]


def says(text: str, *, usage: Usage | None = None) -> ModelAnswer:
    """Return a final answer with this text."""
    return ModelAnswer((TextPart(text),), "end_turn", "scripted", usage or Usage(10, 5))


def calls(*wanted: tuple[str, Arguments] | tuple[str, Arguments, str], text: str = "") -> ModelAnswer:
    """Return an answer that asks for tools, all at once.

    Each is ``(tool name, arguments)`` or ``(tool name, arguments, call id)``. Without an id, calls are numbered within
    the answer; a script that asks for tools more than once gets ids of its own from ``ScriptedModel``.
    """
    parts: list[AnswerPart] = [TextPart(text)] if text else []
    for place, call in enumerate(wanted):
        call_id = call[2] if len(call) == 3 else f"toolu_auto_{place}"
        parts.append(ToolUsePart(call_id, call[0], Raw(msgspec.json.encode(dict(call[1])))))
    return ModelAnswer(tuple(parts), "tool_use", "scripted", Usage(10, 5))


class ScriptedModel:
    """Answers with the next step of its script, in the order it is asked, whoever asks.

    ``requests`` holds every request it got. A script that is used up fails the call as ``fatal``
    (``script_exhausted``), unless ``then`` says what to do from there on.
    """

    def __init__(self, *steps: Step, then: Step | None = None) -> None:
        self.requests: list[ModelRequest] = []
        self.closed = False
        self._steps = list(steps)
        self._then = then

    @property
    def remaining(self) -> int:
        """Return how many steps were not asked for yet."""
        return len(self._steps)

    def add(self, *steps: Step) -> None:
        """Append steps to the script."""
        self._steps.extend(steps)

    async def answer(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelAnswer:
        self.requests.append(request)
        asked = len(self.requests)
        if not self._steps and self._then is None:
            raise ModelFailure(
                "fatal", "script_exhausted", f"The scripted model was asked {asked} times, once too often."
            )
        step = self._steps.pop(0) if self._steps else self._then
        assert step is not None
        return await self._perform(step, request, on_text, asked)

    async def close(self) -> None:
        self.closed = True

    async def _perform(
        self, step: Step, request: ModelRequest, on_text: Callable[[str], None] | None, asked: int
    ) -> ModelAnswer:
        await asyncio.sleep(0)
        while not isinstance(step, (str, ModelAnswer, ModelFailure, Broken)):
            if isinstance(step, Held):
                step = await _wait(step)
            else:
                decided = step(request)
                step = await decided if inspect.isawaitable(decided) else decided
        if isinstance(step, ModelFailure):
            raise step
        if isinstance(step, Broken):
            _stream(step.text, on_text)
            await asyncio.sleep(0)
            raise step.failure
        answer = says(step) if isinstance(step, str) else _numbered(step, asked)
        _stream(answer.text, on_text)
        return answer


async def _wait(held: Held) -> Step:
    held.reached.set()
    try:
        await held.release.wait()
    except asyncio.CancelledError:
        held.cancelled = True
        raise
    return held.step


def _stream(text: str, on_text: Callable[[str], None] | None) -> None:
    if on_text is not None:
        for word in _WORD.findall(text):
            on_text(word)


def _numbered(answer: ModelAnswer, asked: int) -> ModelAnswer:
    """Make the ids that ``calls`` numbered unique over the whole script."""
    content = tuple(
        ToolUsePart(part.id.replace("auto", str(asked), 1), part.name, part.input)
        if isinstance(part, ToolUsePart) and part.id.startswith("toolu_auto_")
        else part
        for part in answer.content
    )
    return ModelAnswer(content, answer.stop_reason, answer.model, answer.usage, answer.response_id)
