"""Running the tool calls of one answer: intent before effect, all at once, each result durable as it lands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from pyflue.dispatches import OutboxDraft
from pyflue.entries import Entry, ToolResultEntry, ToolStartedEntry
from pyflue.errors import ControlFlow, ToolError, described
from pyflue.events import Event, ToolFinished, ToolStarted
from pyflue.messages import ToolSpec, ToolUsePart
from pyflue.session.liveness import patiently
from pyflue.session.resume import PendingCall
from pyflue.session.turn import AbortFlag, CallScope, Turn, calling_from, working_on
from pyflue.tools.call import call as call_tool
from pyflue.tools.tool import ToolDefinition, render_result

REPLY: Final = "reply"
REPLY_TOOL: Final = ToolSpec(
    REPLY,
    "Post a message to the conversation this request came from. Only what you pass here is seen by its people.",
    Raw(
        b'{"type":"object","properties":{"text":{"type":"string","description":"The message, in Markdown."}},'
        b'"required":["text"],"additionalProperties":false}'
    ),
)
UNKNOWN_OUTCOME: Final = (
    "The process running this call died before its result was recorded. It may or may not have had its effect. "
    "Check before you repeat it."
)
ERROR_CHARACTERS: Final = 2_000  # of an exception's text; enough for any message meant to be read


class _ReplyArguments(Struct, forbid_unknown_fields=True):
    text: str


class _Ready(Struct, frozen=True, eq=False):
    call: ToolUsePart
    key: str
    tool: ToolDefinition
    arguments: dict[str, Any]  # JSON from the model, checked against the tool's schema


class _Ended(Struct, frozen=True):
    result: ToolResultEntry
    outbox: tuple[OutboxDraft, ...] = ()
    duration_ms: int = 0

    @property
    def event(self) -> ToolFinished:
        return ToolFinished(self.result.call_id, self.result.name, self.result.outcome, self.duration_ms)


async def run_tool_calls(turn: Turn, pending: tuple[PendingCall, ...]) -> None:
    """Give every pending call a result in the journal.

    Raises:
        LeaseLost: the session is another worker's now; calls still running are cancelled.
    """
    ready: list[_Ready] = []
    ended: list[_Ended] = []
    for item in pending:
        planned = _plan(turn, item)
        if isinstance(planned, _Ready):
            ready.append(planned)
        else:
            ended.append(planned)
    await _record_intent(turn, ready, ended)
    if len(ready) == 1:
        await _run(turn, ready[0])
    elif ready:
        await _run_all(turn, ready)


def _plan(turn: Turn, item: PendingCall) -> _Ready | _Ended:
    """Decide about one call without running anything."""
    call = item.call
    if call.name == REPLY and turn.draft is not None:
        return _reply(turn, item)
    tool = next((tool for tool in turn.agent.tools if tool.name == call.name), None)
    if item.started and (tool is None or tool.retry != "safe"):
        return _Ended(ToolResultEntry(call.id, call.name, UNKNOWN_OUTCOME, "unknown"))
    if tool is None:
        known = ", ".join(tool.name for tool in turn.agent.tools) or "none"
        return _error(call, f"There is no tool named {call.name!r}. Tools: {known}.")
    try:
        return _Ready(call, item.key, tool, tool.decode(bytes(call.input)))
    except ToolError as error:
        return _error(call, str(error))


def _reply(turn: Turn, item: PendingCall) -> _Ended:
    """The built-in ``reply``: its whole effect is the outbox row committed with its result, so it happens exactly once."""
    call = item.call
    try:
        arguments = msgspec.json.decode(call.input, type=_ReplyArguments)
    except msgspec.DecodeError as error:
        return _error(call, f"The arguments do not fit: {error}.")
    if turn.draft is None or not arguments.text.strip():
        return _error(call, "There was nothing to post: text is empty.")
    drafts = turn.draft(arguments.text, item.key)
    return _Ended(ToolResultEntry(call.id, call.name, "Queued for delivery."), drafts)


def _error(call: ToolUsePart, text: str) -> _Ended:
    said = _storable(text[:ERROR_CHARACTERS]).strip() or "The tool failed and did not say why."
    return _Ended(ToolResultEntry(call.id, call.name, said, "error"))


async def _record_intent(turn: Turn, ready: list[_Ready], ended: list[_Ended]) -> None:
    """Commit, in one write, what is decided already and which calls are about to have an effect."""
    starting = [item.call for item in ready if item.tool.retry != "safe"]
    entries: tuple[Entry, ...] = (
        *(item.result for item in ended),
        *(ToolStartedEntry(call.id, call.name) for call in starting),
    )
    events: tuple[Event, ...] = (
        *(item.event for item in ended),
        *(ToolStarted(call.id, call.name) for call in starting),
    )
    if entries:
        outbox = tuple(draft for item in ended for draft in item.outbox)
        await turn.journal.append(turn.dispatch.id, entries, events, outbox)


async def _run_all(turn: Turn, ready: list[_Ready]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for item in ready:
                group.create_task(_run(turn, item))
    except BaseExceptionGroup as failures:
        lost = failures.subgroup(ControlFlow)
        raise (lost or failures).exceptions[0] from None


async def _run(turn: Turn, item: _Ready) -> None:
    """Run one call and record its result."""
    turn.liveness.check()
    began = turn.clock.monotonic()
    result = await _execute(turn, item)
    ended = _Ended(result, (), round((turn.clock.monotonic() - began) * 1000))
    await turn.journal.append(turn.dispatch.id, (ended.result,), (ended.event,))


async def _execute(turn: Turn, item: _Ready) -> ToolResultEntry:
    """Run the tool's function within its time; whatever goes wrong in it is the model's to read."""
    call, limits = item.call, turn.agent.limits
    seconds = item.tool.timeout or limits.tool_timeout
    context = CallContext(turn, item.call, item.key, turn.clock.monotonic() + seconds)
    marker = working_on.set(turn.journal.lease.session_id)
    scope = calling_from.set(CallScope(context.idempotency_key))
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            content = render_result(await call_tool(item.tool, item.arguments, context, watch=turn.control.watch))
    except ToolError as error:
        return _error(call, str(error)).result
    except ControlFlow:
        raise
    except TimeoutError as error:
        if timer.expired():
            context.signal.set()  # a thread cannot be cancelled, only told
            return _error(call, f"The tool was stopped after {seconds:g} seconds. It may have had its effect.").result
        return _error(call, described(error)).result
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the tool call: whatever it raises is the model's to read
        return _error(call, described(error)).result
    finally:
        working_on.reset(marker)
        calling_from.reset(scope)
    return ToolResultEntry(call.id, call.name, _cut(_storable(content), limits.tool_result_characters))


def _storable(text: str) -> str:
    """Replace what UTF-8 cannot hold (lone surrogates, from careless decoding in a tool), so that the journal can."""
    return text.encode("utf-8", "replace").decode()


def _cut(content: str, limit: int) -> str:
    """Keep an oversized result from filling the context; the model is told what is missing."""
    if len(content) <= limit:
        return content
    return f"{content[:limit]}\n[cut: {len(content) - limit} of {len(content)} characters left out]"


class CallContext:
    """The ``ToolContext`` of one call."""

    def __init__(self, turn: Turn, call: ToolUsePart, key: str, deadline: float) -> None:
        self._turn = turn
        self._call = call
        self._key = key
        self._deadline = deadline
        self._signal = turn.control.signal.of_a_call()

    @property
    def idempotency_key(self) -> str:
        return f"{self._turn.dispatch.id}:{self._key}"

    @property
    def call_id(self) -> str:
        return self._call.id

    @property
    def dispatch_id(self) -> str:
        return self._turn.dispatch.id

    @property
    def session_id(self) -> str:
        return self._turn.journal.lease.session_id

    @property
    def instance_id(self) -> str:
        return self._turn.journal.lease.address.instance_id

    @property
    def signal(self) -> AbortFlag:
        return self._signal

    @property
    def deadline(self) -> float:
        return self._deadline

    async def step(self, name: str, run: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - JSON
        """Run a part of the tool once; see ``ToolContext.step``."""
        steps, liveness, scope = self._turn.steps, self._turn.liveness, self.idempotency_key
        recorded = await patiently(liveness, lambda: steps.get(scope, name))
        if recorded is None:
            liveness.check()
            result = msgspec.json.encode(await run())
            recorded = await patiently(liveness, lambda: steps.put(self._turn.journal.lease, scope, name, result))
        return msgspec.json.decode(recorded)
