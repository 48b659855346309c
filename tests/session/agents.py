"""Agents and tools the tests of the engine share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Raw

from pyflue import AgentLimits, CreatedAgent, ToolDefinition, create_agent
from pyflue.entries import Entry, ToolResultEntry

_PARAMETERS = Raw(b'{"type":"object","properties":{}}')


def an_agent(*tools: object, limits: AgentLimits | Mapping[str, Any] | None = None, **config: object) -> CreatedAgent:
    """Return an agent with these tools."""
    return create_agent(lambda: {"tools": list(tools), **config}, limits=limits)


class Bench:
    """A tool that shows when it runs: ``began`` counts its runs, and each waits until ``let_go`` is set."""

    def __init__(self, name: str = "work", retry: str = "never") -> None:
        self.began = 0
        self.finished = 0
        self.cancelled = 0
        self.keys: list[str] = []
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()
        self.tool = ToolDefinition(
            name=name,
            description="Works until it is let go.",
            parameters=_PARAMETERS,
            execute=self._run,
            decode=lambda raw: {},
            retry="safe" if retry == "safe" else "never",
            wants_context=True,
            spread=True,
        )

    async def _run(self, context: Any) -> str:
        self.began += 1
        self.keys.append(context.idempotency_key)
        self.reached.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.finished += 1
        return "worked"


def results(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """Return how each call ended: call id to outcome and content."""
    ended = [entry for entry in entries if isinstance(entry, ToolResultEntry)]
    assert len({entry.call_id for entry in ended}) == len(ended), "a call has two results"
    return {entry.call_id: (entry.outcome, entry.content) for entry in ended}


def kinds(entries: Sequence[Entry]) -> list[str]:
    return [str(type(entry).__struct_config__.tag) for entry in entries]
