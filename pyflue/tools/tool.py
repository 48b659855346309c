"""Tools: what an agent can do besides talking.

A tool is a name, a description, a JSON schema and a function. ``retry`` says what happens when a process dies
while it runs: ``"safe"`` runs it again with the same idempotency key; ``"never"`` (the default) records an
unknown outcome that the model is told of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Raw, Struct

from pyflue.errors import ToolError
from pyflue.messages import ToolSpec

RetryPolicy = Literal["never", "safe"]
EMPTY_SCHEMA: Final = b'{"type":"object","properties":{}}'


class AbortSignal(Protocol):
    """Tells a tool that its turn is over: aborted, timed out, or the process is stopping."""

    @property
    def aborted(self) -> bool: ...

    async def wait(self) -> None: ...


class ToolContext(Protocol):
    """What a tool may know about its call, given to a parameter annotated ``ToolContext``."""

    @property
    def idempotency_key(self) -> str:
        """Stable for this call over every retry and host; pass it to whatever you change."""
        ...

    @property
    def call_id(self) -> str: ...

    @property
    def dispatch_id(self) -> str: ...

    @property
    def session_id(self) -> str: ...

    @property
    def instance_id(self) -> str: ...

    @property
    def signal(self) -> AbortSignal: ...

    @property
    def deadline(self) -> float:
        """``time.monotonic()`` seconds at which the call is cancelled."""
        ...

    async def step(self, name: str, run: Callable[[], Awaitable[Any]]) -> Any:
        """Run a part once: its JSON result is recorded, and later runs of this call get it back instead."""
        ...


class Arguments(Protocol):
    """Decodes the model's JSON arguments; built once per tool from its type hints or its schema."""

    def __call__(self, raw: bytes) -> dict[str, Any]:
        """Return keyword arguments.

        Raises:
            ToolError: they do not fit; the message tells the model what is wrong.
        """
        ...


async def unimplemented(arguments: object) -> None:
    """Stand in for a function that was not given."""
    raise ToolError("This tool has no function to run.")


def unread(raw: bytes) -> dict[str, Any]:
    """Stand in for the decoder of a definition that was written as a value, until its agent is built."""
    raise ToolError("The arguments of this tool cannot be read.")


class ToolDefinition(Struct, frozen=True, eq=False):
    """One tool. ``execute`` takes the decoded arguments as a mapping, and the context if ``wants_context``.

    ``parameters`` is a JSON Schema object, as a mapping or raw JSON. ``timeout`` in seconds; None: the agent's limit.
    ``@tool`` and ``define_tool`` fill in the rest; for a definition written as a value, as in 0.2, building its agent
    does, as ``define_tool`` would.
    """

    name: str
    description: str
    parameters: Raw | Mapping[str, Any] = Raw(EMPTY_SCHEMA)
    execute: Callable[..., Any] = unimplemented
    decode: Arguments = unread
    retry: RetryPolicy = "never"
    timeout: float | None = None
    wants_context: bool = False
    spread: bool = False
    """Whether ``execute`` takes keyword arguments (a ``@tool`` function) or one mapping (``define_tool``)."""
    context_parameter: str = "context"
    """The name under which ``execute`` takes the context, if ``wants_context``."""
    wants_signal: bool = False
    """Whether ``execute`` takes the abort signal as ``signal``, as tools of PyFlue 0.2 may."""

    @property
    def spec(self) -> ToolSpec:
        """Return the tool as the model is told of it."""
        schema = self.parameters if isinstance(self.parameters, Raw) else Raw(msgspec.json.encode(self.parameters))
        return ToolSpec(self.name, self.description, schema)


ToolDef = ToolDefinition
"""The name PyFlue 0.2 used."""


def render_result(value: object) -> str:
    """Turn what a tool returned into the text the model sees: text as it is, None as empty, anything else as JSON.

    Raises:
        ToolError: JSON cannot hold it. The model is told that the tool did run, so that it does not simply run it again.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ToolError("The tool ran, but what it returned is neither text nor JSON.", cause=f"{error}.") from error
