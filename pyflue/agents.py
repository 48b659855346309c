"""Agents: created from an initializer, built for one instance when there is work for it."""

from __future__ import annotations

import asyncio
import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar, Final, TypeGuard

from msgspec import Struct, structs

from pyflue.errors import AgentBuildError, ConfigurationError, described
from pyflue.models.protocol import ThinkingLevel
from pyflue.profiles import (
    AgentLimits,
    AgentRuntimeConfig,
    check_config,
    check_profile,
    config_from,
    invalid,
    limits_from,
    resolve_agent_profile,
)
from pyflue.stores.protocol import SessionStore
from pyflue.tools.define import completed, tool
from pyflue.tools.threads import run_in_thread
from pyflue.tools.tool import ToolDefinition, unimplemented

AGENT_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
RESERVED_TOOLS: Final = frozenset({"reply"})
"""Names of tools PyFlue adds itself: ``reply`` is how a model answers a channel in the ``tool`` reply mode."""


class AgentCreateContext(Struct, frozen=True):
    """What an initializer is told: the instance's id, the environment agents may read, and the dispatch's payload."""

    id: str = "default"
    env: Mapping[str, str] = {}
    payload: Any = None


Initializer = Callable[..., Any]
"""Takes no argument or one ``AgentCreateContext``; returns (or awaits) a configuration, a profile, or a mapping."""


class CreatedAgent(Struct, frozen=True, eq=False):
    """An agent's definition. Nothing of it has run yet. ``name`` is empty unless one was given.

    ``limits`` are part of the definition, not of what the initializer returns, because attempts and wall clock are
    checked before any user code runs.
    """

    __pyflue_created_agent__: ClassVar[bool] = True

    initialize: Initializer
    name: str = ""
    limits: AgentLimits = AgentLimits()


class ResolvedAgent(Struct, frozen=True, eq=False):
    """An agent as one instance runs it. ``model`` None means the project's default; ``max_tokens`` None the provider's.

    Tool names are unique and never reserved; every tool has a function.
    """

    name: str
    model: str | None
    instructions: str
    thinking_level: ThinkingLevel
    tools: tuple[ToolDefinition, ...]
    limits: AgentLimits
    max_tokens: int | None = None
    persist: SessionStore | None = None
    description: str = ""


def create_agent(
    initialize: Initializer, *, name: str | None = None, limits: AgentLimits | Mapping[str, Any] | None = None
) -> CreatedAgent:
    """Define an agent by the function that configures it for an instance; the function is not called here.

    ``initialize`` may be sync or async, and takes no argument or one ``AgentCreateContext``. It runs once for each
    attempt at a dispatch, so it should be quick and repeatable. Without ``name`` an agent in a project is called after
    its file's path; elsewhere ``default_name`` and ``build`` say how. ``limits``: what one dispatch may use.

    Raises:
        ConfigurationError: ``initialize`` is not callable, the name cannot be part of an address, or a limit is out of range.
    """
    if not callable(initialize):
        raise invalid(
            "create_agent() needs an initializer function.", "Pass the function that returns the configuration."
        )
    if name is not None and not AGENT_NAME.fullmatch(name):
        raise invalid(
            f"An agent cannot be named {name!r}.", "Use letters, digits, dashes and underscores, dots between."
        )
    return CreatedAgent(initialize, name or "", limits_from(limits))


def is_created_agent(value: object) -> TypeGuard[CreatedAgent]:
    """Tell whether a value was made by ``create_agent``."""
    if isinstance(value, CreatedAgent):
        return True
    return not isinstance(value, type) and getattr(value, "__pyflue_created_agent__", None) is True


def default_name(agent: CreatedAgent) -> str:
    """Name an agent without running it: the name it was given, else the stem of the file that defines its initializer.

    Raises:
        ConfigurationError: there is neither a name nor a file, as in an interactive session.
    """
    if agent.name:
        return agent.name
    code = code_of(agent.initialize)
    stem = "" if code is None or code.co_filename.startswith("<") else Path(code.co_filename).stem
    if not AGENT_NAME.fullmatch(stem):
        raise invalid("This agent has no name.", 'Give it one: create_agent(initialize, name="support").')
    return stem


def code_of(initialize: Initializer) -> CodeType | None:
    """Return the code of an initializer, under decorators, partials and bound methods; None for a builtin."""
    function: Any = inspect.unwrap(initialize)
    while isinstance(function, partial):
        function = inspect.unwrap(function.func)
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.ismethod(function):
        function = function.__func__
    return function.__code__ if inspect.isfunction(function) else None


async def build(agent: CreatedAgent, context: AgentCreateContext, name: str = "") -> ResolvedAgent:
    """Run the initializer for one instance and check what it returns.

    ``name`` is the name it was addressed by. Without one the agent names itself: the name given to ``create_agent``,
    else its configuration's, else the stem of its file. A sync initializer runs in a thread.

    Raises:
        AgentBuildError: the initializer raised, or returned something that cannot work; ``detail`` has the trace.
    """
    shown = name or agent.name or "(unnamed)"
    try:
        returned = await _initialize(agent.initialize, context)
    except GeneratorExit:  # this call itself is thrown away
        raise
    except BaseException as error:  # the user's code may raise anything
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        raise AgentBuildError(shown, f"{described(error)}.", detail=traceback.format_exc()) from error
    try:
        return _resolve(agent, config_from(returned), name)
    except ConfigurationError as error:
        raise AgentBuildError(shown, str(error), detail=traceback.format_exc()) from error


async def _initialize(initialize: Initializer, context: AgentCreateContext) -> object:
    run = partial(initialize, context) if _takes_context(initialize) else initialize
    if inspect.iscoroutinefunction(initialize):
        return await run()
    returned = await run_in_thread(run)
    return await returned if inspect.isawaitable(returned) else returned


def _takes_context(initialize: Initializer) -> bool:
    kinds = {parameter.kind for parameter in inspect.signature(initialize).parameters.values()}
    positional = {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    }
    return bool(kinds & positional)


def _resolve(agent: CreatedAgent, config: AgentRuntimeConfig, name: str) -> ResolvedAgent:
    check_config(config)
    merged = resolve_agent_profile(config)
    tools = tuple(_as_tool(each) for each in merged.tools or ())
    profile = structs.replace(merged, tools=tools)
    check_profile(profile)
    return ResolvedAgent(
        name=name or agent.name or profile.name or default_name(agent),
        model=profile.model or None,
        instructions=profile.instructions or "",
        thinking_level=profile.thinking_level or "off",
        tools=tools,
        limits=agent.limits,
        max_tokens=profile.max_tokens,
        persist=config.persist,
        description=profile.description or "",
    )


def _as_tool(given: object) -> ToolDefinition:
    made = completed(given) if isinstance(given, ToolDefinition) else _from_function(given)
    if made.name in RESERVED_TOOLS:
        raise invalid(f"An agent has a tool named {made.name!r}, which PyFlue keeps for its own.", "Rename it.")
    if made.execute is unimplemented:
        raise invalid(f"Tool {made.name!r} has no function to run.", "Pass execute to define_tool().")
    return made


def _from_function(given: object) -> ToolDefinition:
    if not callable(given):
        raise invalid(
            f"A tool of the agent is a {type(given).__name__}.", "Use @tool, define_tool() or a typed function."
        )
    return tool(given)
