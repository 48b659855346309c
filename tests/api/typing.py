"""Compiled by the type checker, never run: the public names keep their types for those who call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from pyflue import (
    AgentCreateContext,
    AgentLimits,
    AgentProfile,
    AgentRuntimeConfig,
    CreatedAgent,
    InMemorySessionStore,
    SessionStore,
    ToolContext,
    ToolDefinition,
    create_agent,
    define_agent_profile,
    define_tool,
    extend_agent_profile,
    is_created_agent,
    resolve_agent_profile,
    tool,
)


@tool
def bare(q: str) -> str:
    """Look it up."""
    return q


@tool(name="charge", description="Charge.", retry="safe", timeout=5)
async def called(amount: int, context: ToolContext) -> str:
    await context.step("charge", context.signal.wait)
    return f"{amount} {context.idempotency_key}"


def execute(arguments: dict[str, Any]) -> str:
    return str(arguments)


assert_type(bare, ToolDefinition)
assert_type(called, ToolDefinition)
assert_type(tool(), Callable[[Callable[..., Any]], ToolDefinition])
assert_type(define_tool("x", execute, parameters={"type": "object"}), ToolDefinition)


def initialize(context: AgentCreateContext) -> AgentRuntimeConfig:
    return AgentRuntimeConfig(
        profile=AgentProfile(name="base", model=False),
        model="anthropic/claude",
        instructions=f"You help {context.id}.",
        thinking_level="low",
        tools=[bare, called],
        max_tokens=1_000,
        persist=InMemorySessionStore(),
    )


async def initialize_later() -> dict[str, object]:
    return {"model": "anthropic/claude"}


assert_type(create_agent(initialize, name="support", limits=AgentLimits(max_turns=5)), CreatedAgent)
assert_type(create_agent(initialize_later, limits={"wall_clock": 60}), CreatedAgent)
assert_type(define_agent_profile({"name": "x"}), AgentProfile)
assert_type(extend_agent_profile(AgentProfile(), tools=[bare]), AgentProfile)
assert_type(resolve_agent_profile(AgentRuntimeConfig()), AgentProfile)


def narrowed(value: object) -> str:
    return value.name if is_created_agent(value) else ""


def stored() -> SessionStore:
    return InMemorySessionStore()
