"""Agents and profiles: what they may say, how they merge, and what happens when their code fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from pyflue.agents import (
    AgentCreateContext,
    CreatedAgent,
    build,
    create_agent,
    default_name,
    is_created_agent,
)
from pyflue.errors import AgentBuildError, ConfigurationError, ToolError
from pyflue.profiles import (
    AgentLimits,
    AgentProfile,
    AgentRuntimeConfig,
    define_agent_profile,
    extend_agent_profile,
    resolve_agent_profile,
)
from pyflue.tools.define import define_tool, tool
from pyflue.tools.tool import ToolDefinition


@tool
def lookup(q: str) -> str:
    """Look it up."""
    return q


@tool
def charge(amount: int) -> str:
    """Charge."""
    return str(amount)


class Kept:
    async def append(self, session: str, expected_head: int, entries: Sequence[bytes]) -> int:
        return expected_head + len(entries)

    async def load(self, session: str, after: int = 0) -> list[tuple[int, bytes]]:
        return []

    async def delete(self, session: str) -> None:
        return None


def test_creating_an_agent_runs_nothing() -> None:
    ran: list[str] = []

    agent = create_agent(lambda: ran.append("ran"))

    assert ran == []
    assert is_created_agent(agent)
    assert not is_created_agent(lambda: None)
    assert not is_created_agent(CreatedAgent)


def test_an_agent_needs_an_initializer_function() -> None:
    with pytest.raises(ValueError, match="initializer function"):
        create_agent("support")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "../x", ".", "..", "a/b", "a..b", "größe", "a\n"])
def test_names_that_cannot_be_part_of_an_address_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be named"):
        create_agent(lambda: {}, name=name)


async def test_an_initializer_is_told_which_instance_it_builds() -> None:
    agent = create_agent(
        lambda context: {"instructions": f"{context.id} {context.env['REGION']} {context.payload['n']}"}
    )

    built = await build(agent, AgentCreateContext("customer-42", {"REGION": "eu"}, {"n": 1}), "support")

    assert built.instructions == "customer-42 eu 1"
    assert built.name == "support"


async def test_initializers_may_be_sync_or_async_with_or_without_the_context() -> None:
    async def with_context(context: AgentCreateContext) -> dict[str, Any]:
        return {"model": f"m/{context.id}"}

    async def without() -> dict[str, Any]:
        return {"model": "m/default"}

    class Initializer:
        def __call__(self, *args: AgentCreateContext) -> dict[str, Any]:
            return {"model": f"m/{args[0].id}"}

    for initialize in (with_context, without, Initializer(), lambda *_: without()):
        assert (await build(create_agent(initialize), AgentCreateContext(), "a")).model == "m/default"


async def test_a_sync_initializer_does_not_run_on_the_event_loop() -> None:
    loops = threading.get_ident()

    built = await build(
        create_agent(lambda: {"instructions": str(threading.get_ident() == loops)}), AgentCreateContext(), "a"
    )

    assert built.instructions == "False"


async def test_everything_an_agent_says_is_resolved() -> None:
    store = Kept()
    agent = create_agent(
        lambda: AgentRuntimeConfig(
            name="triage",
            description="Sorts.",
            model="anthropic/claude",
            instructions="Sort.",
            thinking_level="low",
            tools=[lookup],
            max_tokens=1_000,
            persist=store,
        ),
        limits=AgentLimits(max_turns=3),
    )

    built = await build(agent, AgentCreateContext())

    assert (built.name, built.description, built.model) == ("triage", "Sorts.", "anthropic/claude")
    assert (built.instructions, built.thinking_level, built.max_tokens) == ("Sort.", "low", 1_000)
    assert built.tools == (lookup,)
    assert built.limits == AgentLimits(max_turns=3)
    assert built.persist is store


async def test_what_an_agent_leaves_out_has_defaults() -> None:
    built = await build(create_agent(lambda: {}), AgentCreateContext(), "a")

    assert (built.model, built.instructions, built.thinking_level, built.tools) == (None, "", "off", ())
    assert built.limits == AgentLimits(
        max_attempts=10,
        wall_clock=3_600,
        max_turns=50,
        max_tool_calls=200,
        max_tokens_total=None,
        tool_timeout=120,
        tool_result_characters=100_000,
    )


def test_limits_are_known_before_the_initializer_runs_and_may_be_a_mapping() -> None:
    agent = create_agent(lambda: 1 / 0, limits={"wall_clock": 60, "max_attempts": 2})

    assert agent.limits == AgentLimits(wall_clock=60.0, max_attempts=2)


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_turn": 1}, "unknown field `max_turn`"),
        ({"max_turns": 0}, r"`\$\.max_turns`"),
        ({"max_turns": True}, r"`\$\.max_turns`"),
        ({"wall_clock": float("inf")}, r"`\$\.wall_clock`"),
        ({"tool_timeout": float("nan")}, r"`\$\.tool_timeout`"),
        (AgentLimits(max_attempts=-1), r"`\$\.max_attempts`"),
        (5, "limits of an agent cannot be used"),
    ],
)
def test_limits_out_of_range_are_refused(limits: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        create_agent(lambda: {}, limits=limits)


async def test_plain_functions_become_tools() -> None:
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    built = await build(create_agent(lambda: {"tools": [weather, lookup]}), AgentCreateContext(), "a")

    assert [each.name for each in built.tools] == ["weather", "lookup"]


async def test_a_tool_may_be_written_as_a_value_as_in_0_2() -> None:
    async def execute(arguments: dict[str, Any], context: object) -> object:
        return arguments["q"]

    schema = {"type": "object", "properties": {"q": {"type": "integer"}}, "required": ["q"]}

    async def tool_of(written: ToolDefinition) -> ToolDefinition:
        [built] = (await build(create_agent(lambda: {"tools": [written]}), AgentCreateContext(), "a")).tools
        return built

    built = await tool_of(ToolDefinition("find", "Find it.", schema, execute))

    assert built.decode(b'{"q": 1}') == {"q": 1}
    assert built.wants_context
    assert msgspec.json.decode(built.spec.input_schema) == schema
    with pytest.raises(ToolError, match="required field `q`"):
        built.decode(b"{}")
    for unusable, told in (
        (ToolDefinition("find", "Find it."), "no function to run"),
        (ToolDefinition("find it", "Find it.", schema, execute), "cannot be the name of a tool"),
        (ToolDefinition("find", "Find it.", {"type": "string"}, execute), "not a usable JSON Schema"),
    ):
        with pytest.raises(AgentBuildError, match=told):
            await tool_of(unusable)


def undescribed(q: str) -> str:
    return q


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"modle": "x"}, "unknown runtime config field 'modle'"),
        ({"profile": {"modle": "x"}}, "unknown agent profile field 'modle'"),
        ({"limits": {"max_turns": 1}}, "Pass them to create_agent(initialize, limits=…)"),
        ({"profile": "x"}, "An agent profile was given as str"),
        ("text", "returned str"),
        (None, "returned NoneType"),
        ({"name": "1st"}, "the name '1st'"),
        ({"name": 5}, "the name 5"),
        ({"model": " "}, "model of an agent"),
        ({"model": True}, "model of an agent"),
        ({"instructions": ""}, "instructions of an agent"),
        ({"thinking_level": "huge"}, "'huge' is not known"),
        ({"thinking_level": ["off"]}, "is not known"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"tools": lookup}, "tools of an agent must be a list"),
        ({"tools": "lookup"}, "tools of an agent must be a list"),
        ({"tools": ["lookup"]}, "A tool of the agent is a str"),
        ({"tools": [lookup, lookup]}, "duplicate tool name: 'lookup'"),
        ({"profile": {"tools": [lookup]}, "tools": [lookup]}, "duplicate tool name: 'lookup'"),
        ({"tools": [undescribed]}, "'undescribed') has no description"),
        ({"tools": [lambda q: q]}, "cannot be the name of a tool"),
        ({"tools": [define_tool("reply", lambda arguments: "", description="d")]}, "keeps for its own"),
        ({"tools": [define_tool("later", description="d")]}, "has no function to run"),
        ({"skills": ["pdf"]}, "skills, which is not in this release"),
        ({"subagents": [AgentProfile(name="x")]}, "subagents, which is not in this release"),
        ({"profile": {"skills": ["pdf"]}}, "skills, which is not in this release"),
        ({"compaction": {"enabled": True}}, "compaction, which is not in this release"),
        ({"sandbox": "local", "cwd": "/x"}, "cwd and sandbox, which is not in this release"),
        ({"persist": "sqlite"}, "does not keep sessions"),
    ],
)
async def test_what_cannot_work_is_refused_by_name(config: Any, told: str) -> None:
    with pytest.raises(AgentBuildError) as refused:
        await build(create_agent(lambda: config), AgentCreateContext(), "support")

    assert told in str(refused.value)
    assert "'support'" in str(refused.value)


@pytest.mark.parametrize(
    "config", [{"skills": [], "tools": (), "subagents": []}, {"compaction": False, "sandbox": None}]
)
async def test_saying_nothing_of_what_is_not_in_this_release_is_fine(config: dict[str, Any]) -> None:
    assert (await build(create_agent(lambda: config), AgentCreateContext(), "a")).tools == ()


async def test_an_initializer_that_raises_is_a_build_error_without_its_trace() -> None:
    def initialize() -> dict[str, Any]:
        return {"instructions": {}["missing"]}

    with pytest.raises(AgentBuildError) as failed:
        await build(create_agent(initialize), AgentCreateContext(), "support")

    assert "KeyError: 'missing'" in str(failed.value)
    assert "Traceback" not in str(failed.value)
    assert "test_agents.py" not in str(failed.value)
    assert "test_agents.py" in failed.value.detail


@pytest.mark.parametrize(
    "kind",
    [
        SystemExit,
        KeyboardInterrupt,
        asyncio.CancelledError,
        type("Exit", (BaseException,), {}),
        type("Wordless", (Exception,), {"__str__": lambda _: 1 / 0}),
    ],
)
async def test_an_initializer_cannot_end_the_process_or_its_task(kind: type[BaseException]) -> None:
    def initialize() -> None:
        raise kind(1)

    async def initialize_async() -> None:
        raise kind(1)

    for initializer in (initialize, initialize_async):
        with pytest.raises(AgentBuildError, match=kind.__name__):
            await build(create_agent(initializer), AgentCreateContext(), "support")


def test_an_unnamed_agent_is_called_after_the_file_of_its_initializer() -> None:
    def decorated(context: AgentCreateContext) -> dict[str, Any]:
        return {}

    assert default_name(create_agent(decorated)) == "test_agents"
    assert default_name(create_agent(decorated, name="support.eu")) == "support.eu"


async def test_an_agents_name_is_the_one_addressed_then_given_then_its_configurations_then_its_files() -> None:
    def named() -> dict[str, Any]:
        return {"profile": {"name": "profiled"}}

    async def name_of(agent: CreatedAgent, addressed: str = "") -> str:
        return (await build(agent, AgentCreateContext(), addressed)).name

    assert await name_of(create_agent(named, name="given"), "addressed") == "addressed"
    assert await name_of(create_agent(named, name="given")) == "given"
    assert await name_of(create_agent(named)) == "profiled"
    assert await name_of(create_agent(lambda: {})) == "test_agents"


def test_an_agent_that_has_neither_name_nor_file_must_be_given_one() -> None:
    scope: dict[str, Any] = {}
    exec("def initialize():\n    return {}\n", scope)

    with pytest.raises(ConfigurationError, match="has no name"):
        default_name(create_agent(scope["initialize"]))


def test_a_profile_may_be_a_mapping() -> None:
    profile = define_agent_profile({"name": "triage", "model": False, "tools": [lookup]})

    assert isinstance(profile, AgentProfile)
    assert (profile.name, profile.model, profile.tools) == ("triage", False, [lookup])


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ({"modle": "x"}, "unknown agent profile field"),
        ({"cwd": "x"}, "unknown agent profile field"),
        (AgentRuntimeConfig(), "given as AgentRuntimeConfig"),
        (create_agent(lambda: {}), "given as CreatedAgent"),
        ({"tools": [len]}, r"tools\[0\] of an agent profile is a builtin_function_or_method"),
        ({"tools": [lookup, lookup]}, "duplicate tool name"),
    ],
)
def test_a_profile_that_cannot_work_is_a_value_error(profile: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        define_agent_profile(profile)


def test_extending_a_profile_adds_at_the_end_and_leaves_the_original() -> None:
    profile = define_agent_profile({"name": "triage", "tools": [lookup]})

    extended = extend_agent_profile(profile, tools=[charge])

    assert extended.tools == (lookup, charge)
    assert extended.name == "triage"
    assert profile.tools == [lookup]
    with pytest.raises(ConfigurationError, match="duplicate tool name"):
        extend_agent_profile(profile, tools=[lookup])


def test_inline_values_win_over_the_profile_and_false_is_a_value() -> None:
    profile = AgentProfile(name="base", model="m/x", instructions="Base.", tools=[lookup], max_tokens=5)

    resolved = resolve_agent_profile(
        AgentRuntimeConfig(profile=profile, model=False, instructions="Mine.", tools=[charge])
    )

    assert (resolved.name, resolved.model, resolved.instructions) == ("base", False, "Mine.")
    assert resolved.tools == (lookup, charge)
    assert resolved.max_tokens == 5
    assert resolved.skills is None


async def test_a_model_of_false_means_the_projects_default() -> None:
    agent = create_agent(lambda: {"profile": AgentProfile(model="m/x"), "model": False})

    assert (await build(agent, AgentCreateContext(), "a")).model is None
