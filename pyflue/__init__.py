"""PyFlue: a queue-first production runtime for AI agents.

Everything public is here, by subject; all else is private by place. Names are resolved when first used, so that
importing the package, or one part of it, stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pyflue.agents import AgentCreateContext, CreatedAgent, create_agent, is_created_agent
    from pyflue.config import Project, Settings, load_project
    from pyflue.dispatches import Dispatch, DispatchResult, Receipt
    from pyflue.errors import (
        ConfigurationError,
        DispatchAbortedError,
        DispatchFailedError,
        IdempotencyConflictError,
        InvalidInputError,
        PyFlueError,
        QueueFullError,
        SelfPromptError,
        StoreUnavailableError,
        ToolError,
    )
    from pyflue.handles import PyFlueAgent, PyFlueEvent, PyFlueSession, init_agent
    from pyflue.profiles import (
        AgentLimits,
        AgentProfile,
        AgentRuntimeConfig,
        define_agent_profile,
        extend_agent_profile,
        resolve_agent_profile,
    )
    from pyflue.results import HarnessResult, PromptCost, PromptModel, PromptUsage
    from pyflue.runtime import Runtime, open_runtime
    from pyflue.stores.protocol import SessionStore
    from pyflue.stores.sessions import InMemorySessionStore
    from pyflue.stores.sqlite.sessions import SQLiteSessionStore
    from pyflue.tools.define import define_tool, tool
    from pyflue.tools.tool import ToolContext, ToolDef, ToolDefinition

_PLACES: Final[dict[str, str]] = {
    # agents
    "AgentCreateContext": "pyflue.agents",
    "AgentLimits": "pyflue.profiles",
    "AgentProfile": "pyflue.profiles",
    "AgentRuntimeConfig": "pyflue.profiles",
    "CreatedAgent": "pyflue.agents",
    "create_agent": "pyflue.agents",
    "define_agent_profile": "pyflue.profiles",
    "extend_agent_profile": "pyflue.profiles",
    "is_created_agent": "pyflue.agents",
    "resolve_agent_profile": "pyflue.profiles",
    # handles
    "PyFlueAgent": "pyflue.handles",
    "PyFlueEvent": "pyflue.handles",
    "PyFlueSession": "pyflue.handles",
    "init_agent": "pyflue.handles",
    # results
    "HarnessResult": "pyflue.results",
    "PromptCost": "pyflue.results",
    "PromptModel": "pyflue.results",
    "PromptUsage": "pyflue.results",
    "Dispatch": "pyflue.dispatches",
    "DispatchResult": "pyflue.dispatches",
    "Receipt": "pyflue.dispatches",
    # tools
    "ToolContext": "pyflue.tools.tool",
    "ToolDef": "pyflue.tools.tool",
    "ToolDefinition": "pyflue.tools.tool",
    "define_tool": "pyflue.tools.define",
    "tool": "pyflue.tools.define",
    # conversation stores
    "InMemorySessionStore": "pyflue.stores.sessions",
    "SQLiteSessionStore": "pyflue.stores.sqlite.sessions",
    "SessionStore": "pyflue.stores.protocol",
    # runtime
    "Project": "pyflue.config",
    "Runtime": "pyflue.runtime",
    "Settings": "pyflue.config",
    "load_project": "pyflue.config",
    "open_runtime": "pyflue.runtime",
    # errors
    "ConfigurationError": "pyflue.errors",
    "DispatchAbortedError": "pyflue.errors",
    "DispatchFailedError": "pyflue.errors",
    "IdempotencyConflictError": "pyflue.errors",
    "InvalidInputError": "pyflue.errors",
    "PyFlueError": "pyflue.errors",
    "QueueFullError": "pyflue.errors",
    "SelfPromptError": "pyflue.errors",
    "StoreUnavailableError": "pyflue.errors",
    "ToolError": "pyflue.errors",
}

__all__ = [
    "AgentCreateContext",
    "AgentLimits",
    "AgentProfile",
    "AgentRuntimeConfig",
    "ConfigurationError",
    "CreatedAgent",
    "Dispatch",
    "DispatchAbortedError",
    "DispatchFailedError",
    "DispatchResult",
    "HarnessResult",
    "IdempotencyConflictError",
    "InMemorySessionStore",
    "InvalidInputError",
    "Project",
    "PromptCost",
    "PromptModel",
    "PromptUsage",
    "PyFlueAgent",
    "PyFlueError",
    "PyFlueEvent",
    "PyFlueSession",
    "QueueFullError",
    "Receipt",
    "Runtime",
    "SQLiteSessionStore",
    "SelfPromptError",
    "SessionStore",
    "Settings",
    "StoreUnavailableError",
    "ToolContext",
    "ToolDef",
    "ToolDefinition",
    "ToolError",
    "create_agent",
    "define_agent_profile",
    "define_tool",
    "extend_agent_profile",
    "init_agent",
    "is_created_agent",
    "load_project",
    "open_runtime",
    "resolve_agent_profile",
    "tool",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'pyflue' has no attribute {name!r}")
    value: object = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
