"""What the turn loop asks of a model provider."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Literal, Protocol

from msgspec import Struct

from pyflue.errors import PyFlueError
from pyflue.messages import Message, ModelAnswer, ToolSpec

ThinkingLevel = Literal["off", "minimal", "low", "medium", "high", "xhigh"]


class ModelRequest(Struct, frozen=True):
    """One model call. ``model`` is the provider's own id, without the ``provider/`` prefix."""

    model: str
    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    max_tokens: int = 8_192
    thinking_level: ThinkingLevel = "off"


FailureKind = Literal["rate_limited", "overloaded", "transient", "context_overflow", "fatal"]
"""``rate_limited`` and ``overloaded`` park without spending an attempt; ``transient`` parks and spends one;
``context_overflow`` and ``fatal`` settle the dispatch failed."""


class ModelFailure(PyFlueError):
    """A model call that gave no complete answer, classified once (``models/retry.py``).

    ``code`` is stable; ``retry_after`` is what the provider asked for, if it did.
    """

    def __init__(
        self,
        kind: FailureKind,
        code: str,
        message: str,
        *,
        fix: str = "",
        retry_after: timedelta | None = None,
        detail: str = "",
    ) -> None:
        self.kind = kind
        self.reason_code = code
        self.retry_after = retry_after
        super().__init__(message, fix=fix, detail=detail)


class Model(Protocol):
    """A provider, shared by all turns of a process. Cancelling a call closes its connection at once."""

    async def answer(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelAnswer:
        """Call the model and return its complete answer; ``on_text`` sees text deltas as they arrive.

        Raises:
            ModelFailure: no complete answer; nothing of it may be used.
        """
        ...

    async def close(self) -> None:
        """Close connections; idempotent."""
        ...
