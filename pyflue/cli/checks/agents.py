"""Do the agents load, do the channels have what they need, and can each agent's model be asked?"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from pyflue.agents import AgentCreateContext, ResolvedAgent, build
from pyflue.channels.choose import build_channels, unbuilt_channels
from pyflue.cli.checks.finding import Finding, fail, ok, warn
from pyflue.config import Project
from pyflue.errors import ConfigurationError
from pyflue.models.resolve import ModelProviders, choose_model
from pyflue.registry import Registry, discover

BUILD_TIMEOUT: Final = 10.0  # seconds an initializer may take here
INSTANCE: Final = "doctor"  # the instance id initializers are given


class Loaded(Struct, frozen=True):
    """The project's agents. ``own_journal``: those that keep their conversations in a store of their own."""

    registry: Registry
    own_journal: frozenset[str]
    findings: tuple[Finding, ...]


async def load_agents(project: Project) -> Loaded:
    """Load every agent file and build each agent once, as a worker would. What their code prints goes to stderr."""
    findings: list[Finding] = []
    own_journal: set[str] = set()
    models = ModelProviders(project.settings.models, project.secrets)
    with contextlib.redirect_stdout(sys.stderr):
        registry = discover(project.root, project.settings.agents.directories)
        for name in sorted(registry.names):
            built, finding = await _built(project, registry, models, name)
            findings.append(finding)
            if built is not None and built.persist is not None:
                own_journal.add(name)
    await models.close()
    for name, reason in sorted(registry.broken.items()):
        findings.append(fail(f"agent {name}", reason, "Correct the file; other agents are not affected."))
    if not findings:
        directories = " or ".join(project.settings.agents.directories)
        findings.append(warn("agents", f"There are none in {directories}.", "Put one in agents/NAME.py."))
    return Loaded(registry, frozenset(own_journal), tuple(findings))


async def _built(
    project: Project, registry: Registry, models: ModelProviders, name: str
) -> tuple[ResolvedAgent | None, Finding]:
    check = f"agent {name}"
    try:
        async with asyncio.timeout(BUILD_TIMEOUT):
            context = AgentCreateContext(id=INSTANCE, env=dict(project.env), payload=None)
            agent = await build(registry.get(name), context, name)
    except TimeoutError:
        return None, warn(check, f"Its initializer takes over {BUILD_TIMEOUT:g} s.", "Make it quicker.")
    except ConfigurationError as error:
        if isinstance(error.__cause__, ConfigurationError):  # what it returned is wrong whatever the payload
            return None, fail(check, f"It loads, but cannot be built: {error.cause}", "Correct its initializer.")
        told = f"It loads, but could not be built without a payload: {error.cause or error.what}"
        return None, warn(check, told, "Unless it needs its payload, correct its initializer.")
    try:
        model = choose_model(name, agent.model, project.settings.agents.model)
        models.resolve(model)
    except ConfigurationError as error:
        return agent, fail(check, f"It loads, but {_uncapitalised(error.what)} {error.cause}", error.fix)
    return agent, ok(check, f"Loads; model {model}.")


def check_channels(project: Project, registry: Registry) -> Iterator[Finding]:
    """Yield one finding for each configured channel."""
    settings, secrets = project.settings, project.secrets
    unbuilt = unbuilt_channels(settings.channels, secrets)
    if not settings.channels:
        yield ok("channels", "None configured: only prompts and direct calls bring work.")
    for name, channel in sorted(settings.channels.items()):
        check = f"channel {name}"
        try:
            build_channels({name: channel}, secrets, timeout=settings.outbox.timeout)
        except ConfigurationError as error:
            yield fail(check, f"{error.what} {error.cause}".strip(), error.fix)
            continue
        if name in unbuilt:
            yield fail(check, unbuilt[name], "Set it in the environment of the front and of the workers.")
        elif channel.agent in registry.broken:
            yield fail(check, f"Its agent {channel.agent!r} could not be loaded.", "Correct the agent's file.")
        elif channel.agent not in registry.names:
            fix = f"Add agents/{channel.agent}.py, or correct channels.{name}.agent."
            yield fail(check, f"There is no agent {channel.agent!r}.", fix)
        else:
            yield ok(check, f"Ready; agent {channel.agent}, replies {channel.reply}.")


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
