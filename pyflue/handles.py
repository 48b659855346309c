"""The handles application code holds: an agent instance and its sessions.

A prompt means the same in every process: it is admitted, worked in order under a lease, and its outcome is
recorded under its key. That is what makes a worker of the application's own idempotent: run it again with the
same ``idempotency_key`` and it returns what was recorded, resumes what was begun, or starts.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from pyflue.agents import AgentCreateContext, CreatedAgent, ResolvedAgent, build, default_name, is_created_agent
from pyflue.dispatches import DedupeKey, DispatchInput, SessionAddress
from pyflue.errors import (
    ConfigurationError,
    DispatchAbortedError,
    DispatchFailedError,
    InvalidInputError,
    SelfPromptError,
)
from pyflue.ids import DispatchId
from pyflue.observers.logs import log
from pyflue.results import HarnessResult, result_of_dispatch
from pyflue.runtime import Runtime, current_runtime
from pyflue.session.turn import calling_from, working_on

LONGEST_NAME: Final = 512  # characters of an id, a name or a key; PostgreSQL indexes up to 2,700 bytes


class PyFlueEvent(Struct, frozen=True):
    """What ``on_event`` sees: a dotted type and the event's data, with ``session_id`` and ``dispatch_id``."""

    type: str
    data: Mapping[str, Any]


PyFlueEventCallback = Callable[[PyFlueEvent], Awaitable[None] | None]


class PyFlueAgent:
    """One instance of an agent. Get it from ``init_agent``."""

    def __init__(
        self,
        runtime: Runtime,
        resolved: ResolvedAgent,
        instance_id: str,
        *,
        environment_name: str = "default",
        payload: Raw | None = None,
        on_event: PyFlueEventCallback | None = None,
    ) -> None:
        self.agent_name = resolved.name
        self.instance_id = instance_id
        self.environment_name = environment_name
        self.profile = resolved
        self.on_event = on_event
        self._runtime = runtime
        self._payload = payload

    async def session(self, session_id: str | None = None) -> PyFlueSession:
        """Open a conversation of this instance; the same name is the same conversation in every process.

        Raises:
            InvalidInputError: the name cannot be stored.
        """
        name = session_id or "default"
        _check_name("session name", name)
        return PyFlueSession(self._runtime, self, name, self._payload)


class PyFlueSession:
    """One conversation. Any number of processes may hold it; its prompts are worked one at a time, in order."""

    def __init__(self, runtime: Runtime, agent: PyFlueAgent, session_id: str, payload: Raw | None) -> None:
        self.agent = agent
        self.session_id = session_id
        self.address = SessionAddress(agent.agent_name, agent.instance_id, session_id)
        self._runtime = runtime
        self._payload = payload

    async def prompt(self, text: str, *, idempotency_key: str | None = None) -> HarnessResult:
        """Say something and wait for the outcome.

        With a key: unknown, it starts; finished, the recorded result comes back; unfinished, it is resumed. Without
        one, every call is new work, except in a tool: there the tool call's own key is used, so that a tool that runs
        again does not begin anything twice. If this process dies, any worker that has the agent finishes it.

        Raises:
            DispatchFailedError: it failed for good; ``reason_code`` says why.
            DispatchAbortedError: somebody aborted it.
            IdempotencyConflictError: the key was used with another text.
            InvalidInputError: the text or the key cannot be stored.
            SelfPromptError: called from a tool of this very session.
            QueueFullError, StoreUnavailableError: nothing was admitted.
        """
        if working_on.get() == self.address.id:
            raise SelfPromptError(self.address.id)
        self._runtime.check_loop()
        _check_text(text)
        if idempotency_key is not None:
            _check_name("idempotency key", idempotency_key)
        scope = calling_from.get()
        if idempotency_key is None and scope is not None:
            idempotency_key = scope.key_for(text)
        key = None if idempotency_key is None else DedupeKey(f"prompt:{self.address.id}", idempotency_key)
        work = DispatchInput(text, payload=self._payload)
        receipt = await self._runtime.admitter.dispatch(self.address, work, key)
        watcher = self._watch(receipt.dispatch_id)
        try:
            row = await self._runtime.settled(receipt.dispatch_id, self.address)
        finally:
            await _end(watcher)
        if row.status == "completed":
            return result_of_dispatch(row)
        code = row.error.code if row.error is not None else "aborted"
        message = row.error.message if row.error is not None else "It was aborted."
        failure = DispatchAbortedError if row.status == "aborted" else DispatchFailedError
        raise failure(row.id, code, message)

    async def abort(self) -> bool:
        """Ask for this conversation's unsettled work to be aborted; tell whether there was any."""
        row = await self._runtime.store.views.session(self.address.id)
        if row is None or row.unsettled == 0:
            return False
        return await self._runtime.abort_session(self.address.id) > 0

    def _watch(self, dispatch_id: DispatchId) -> asyncio.Task[None] | None:
        callback = self.agent.on_event
        if callback is None:
            return None
        return asyncio.create_task(self._report(dispatch_id, callback))

    async def _report(self, dispatch_id: DispatchId, callback: PyFlueEventCallback) -> None:
        ids = {"session_id": self.address.id, "dispatch_id": dispatch_id}
        async for event in self._runtime.events(dispatch_id, follow=True):
            data = {**msgspec.json.decode(event.data, type=dict[str, Any]), **ids}
            try:
                answer = callback(PyFlueEvent(event.type, data))
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:  # noqa: BLE001 - an observer's failure is its own, never the turn's
                log("observer.failed", level="warning", error=type(error).__name__)


async def init_agent(  # noqa: PLR0913 - the public signature since 0.2
    agent: CreatedAgent,
    *,
    id: str = "default",
    payload: object = None,
    env: Mapping[str, str] | None = None,
    name: str = "default",
    tools: Sequence[object] | None = None,
    skills: Sequence[object] | None = None,
    subagents: Sequence[object] | None = None,
    config_path: str | Path | None = None,
    on_event: PyFlueEventCallback | None = None,
) -> PyFlueAgent:
    """Open one instance of an agent: its id with the agent's name addresses its conversations.

    The initializer is run once here, so that a broken agent shows at once; workers run it again for each attempt.
    ``payload`` is JSON-able and travels with every prompt, so any worker builds the same agent. ``env``, ``tools``,
    ``skills`` and ``subagents`` would be known to this process alone, and are refused
    (docs/decisions/0007-what-differs-between-calls-travels-in-the-payload.md). ``name`` only labels the handle.

    Raises:
        ConfigurationError: not a created agent, or an agent that cannot be built.
        InvalidInputError: the id or the payload cannot be stored.
    """
    if not is_created_agent(agent):
        raise ConfigurationError("init_agent() requires a created agent.", fix="Pass what create_agent() returned.")
    _check_name("instance id", id)
    _refuse_local({"env": env, "tools": tools, "skills": skills, "subagents": subagents})
    runtime = await current_runtime(config_path)
    known_as = _register(runtime, agent)
    encoded = _encode_payload(payload)
    given = None if encoded is None else msgspec.json.decode(encoded)
    resolved = await build(agent, AgentCreateContext(id=id, env=dict(runtime.project.env), payload=given), known_as)
    return PyFlueAgent(runtime, resolved, id, environment_name=name, payload=encoded, on_event=on_event)


def _register(runtime: Runtime, agent: CreatedAgent) -> str:
    """Return the name the agent goes by in this runtime, adding it if it is not one of the project's."""
    if (known := runtime.registry.name_of(agent)) is not None:
        return known
    name = default_name(agent)
    if runtime.registry.find(name) is not None:
        raise ConfigurationError(
            f"Two agents are called {name!r}, so their conversations would mix.",
            cause="An agent without a name of its own is called after the file it is defined in.",
            fix='Name one of them: create_agent(initialize, name="…").',
        )
    runtime.registry.add(name, agent)
    return name


def _refuse_local(given: Mapping[str, object]) -> None:
    """Refuse what another worker could not know when it resumes this conversation."""
    if names := [name for name, value in given.items() if value]:
        raise ConfigurationError(
            f"init_agent() cannot take {', '.join(names)}.",
            cause="Any worker may resume the conversation, and would not know them.",
            fix="Set them in the agent's initializer; what differs from call to call travels in payload.",
        )


def _check_name(what: str, name: object) -> None:
    """Refuse what not every store can hold as a key, with its length bounded by what an index takes."""
    if (
        not isinstance(name, str)
        or not name.strip()
        or len(name) > LONGEST_NAME
        or "\x00" in name
        or not _is_unicode(name)
    ):
        raise InvalidInputError(
            f"The {what} cannot be used.",
            cause=f"It must be text of 1 to {LONGEST_NAME} characters, not blank, without NUL or half a surrogate pair.",
            fix="Pass another one.",
        )


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInputError(
            f"A prompt was given as {type(text).__name__}.", cause="It must be text.", fix="Pass a str."
        )
    if not _is_unicode(text):
        raise InvalidInputError(
            "The text cannot be stored.", cause="It holds half a surrogate pair.", fix="Decode it as UTF-8 first."
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encode_payload(payload: object) -> Raw | None:
    if payload is None:
        return None
    try:
        return Raw(msgspec.json.encode(payload))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            "The payload is not JSON-serializable.", cause=f"{error}.", fix="Pass what JSON can hold."
        ) from error


async def _end(watcher: asyncio.Task[None] | None) -> None:
    """Let an observer see the last events, but not for ever."""
    if watcher is not None:
        await asyncio.wait({watcher}, timeout=1.0)
        watcher.cancel()
        await asyncio.wait({watcher}, timeout=1.0)
        if watcher.done() and not watcher.cancelled() and (error := watcher.exception()) is not None:
            log("observer.failed", level="warning", error=type(error).__name__)


__all__: Sequence[str] = ("HarnessResult", "PyFlueAgent", "PyFlueEvent", "PyFlueSession", "init_agent")
