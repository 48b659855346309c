"""``pyflue run``."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from msgspec.structs import replace

from pyflue.cli.terminal import plain
from pyflue.config import Project, load_project
from pyflue.handles import init_agent
from pyflue.observers.logs import configure
from pyflue.runtime import open_runtime


def command(
    agent: Annotated[str, typer.Argument(help="The agent's name, as its file is called.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to say.")],
    instance: Annotated[str, typer.Option("--id", help="The instance's id.")] = "default",
    session: Annotated[str, typer.Option("--session", "-s", help="The session's name.")] = "default",
    key: Annotated[str, typer.Option(help="Idempotency key: the same key never runs twice.")] = "",
    config: Annotated[str, typer.Option(help="The settings file.")] = "pyflue.toml",
) -> None:
    """Say one thing to an agent and print its answer. Exit 1 if it failed.

    What goes wrong and is tried again is told on standard error meanwhile.
    """
    project = load_project(config)
    configure(replace(project.settings.log, level="warning"), sys.stderr, project.secrets.all)
    answer = asyncio.run(_run(project, agent, instance, session, prompt, key or None))
    print(plain(answer, lines=True) if sys.stdout.isatty() else answer)  # a program gets it as it is


async def _run(project: Project, agent: str, instance: str, session: str, prompt: str, key: str | None) -> str:
    async with open_runtime(project) as runtime:
        handle = await init_agent(runtime.registry.get(agent), id=instance)
        conversation = await handle.session(session)
        return (await conversation.prompt(prompt, idempotency_key=key)).text
