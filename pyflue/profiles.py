"""What an agent is made of: profiles, runtime configurations and limits, checked and merged.

A profile is a reusable part of an agent; a runtime configuration is what an initializer returns for one instance:
a profile's fields, inline, over an optional ``profile``. Inline values win; tools add up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, cast, get_args

import msgspec
from msgspec import Meta, Struct

from pyflue.errors import ConfigurationError
from pyflue.models.protocol import ThinkingLevel
from pyflue.stores.protocol import SessionStore
from pyflue.tools.tool import ToolDefinition

PROFILE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_A_YEAR: Final = 31_536_000  # seconds; longer is a mistake, and infinity does not fit a duration

Count = Annotated[int, Meta(ge=1)]
LimitSeconds = Annotated[float, Meta(gt=0, le=_A_YEAR)]


class AgentLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """What one dispatch may use before it settles ``failed``.

    ``wall_clock``: seconds from its first start, time spent parked included. ``max_tokens_total``: tokens of all its
    model calls; None means no limit. ``tool_timeout``: seconds one tool call may take. ``tool_result_characters``: a
    longer result is cut before the model sees it.
    """

    max_attempts: Count = 10
    wall_clock: LimitSeconds = 3_600.0
    max_turns: Count = 50
    max_tool_calls: Count = 200
    max_tokens_total: Count | None = None
    tool_timeout: LimitSeconds = 120.0
    tool_result_characters: Count = 100_000


class AgentProfile(Struct, frozen=True, eq=False):
    """A reusable part of an agent. None means: not said here.

    ``model``: ``provider/id``, or False for the project's default. ``max_tokens``: of one answer. ``skills``,
    ``subagents`` and ``compaction`` are of a later release: anything but nothing is refused.
    """

    name: str | None = None
    description: str | None = None
    model: str | Literal[False] | None = None
    instructions: str | None = None
    thinking_level: ThinkingLevel | None = None
    skills: Sequence[object] | None = None
    tools: Sequence[object] | None = None
    subagents: Sequence[object] | None = None
    compaction: object = None
    max_tokens: int | None = None


class AgentRuntimeConfig(AgentProfile, frozen=True, eq=False):
    """What an initializer returns: a profile's fields over ``profile``, and where the conversation is kept.

    ``persist``: a conversation store of the agent's own. ``cwd`` and ``sandbox`` are of a later release.
    """

    profile: AgentProfile | None = None
    cwd: str | None = None
    sandbox: object = None
    persist: SessionStore | None = None


def define_agent_profile(profile: AgentProfile | Mapping[str, Any]) -> AgentProfile:
    """Check a profile, given as one or as a mapping of its fields, and return it.

    Raises:
        ConfigurationError: a field is unknown, or its value cannot work; the message names it.
    """
    made = AgentProfile(**_known(profile, AgentProfile)) if isinstance(profile, Mapping) else profile
    if type(made) is not AgentProfile:
        raise invalid(f"An agent profile was given as {type(made).__name__}.", "Pass an AgentProfile or a mapping.")
    check_profile(made)
    return made


def extend_agent_profile(
    profile: AgentProfile,
    *,
    skills: Sequence[object] | None = None,
    tools: Sequence[object] | None = None,
    subagents: Sequence[object] | None = None,
) -> AgentProfile:
    """Return a copy of the profile with these added at the end; the original stays as it is.

    Raises:
        ConfigurationError: the result cannot work, for example because two tools have one name.
    """
    extended = msgspec.structs.replace(
        profile,
        skills=_joined("skills", profile.skills, skills),
        tools=_joined("tools", profile.tools, tools),
        subagents=_joined("subagents", profile.subagents, subagents),
    )
    check_profile(extended)
    return extended


def resolve_agent_profile(config: AgentRuntimeConfig) -> AgentProfile:
    """Merge a runtime configuration over its profile.

    A single value comes from the configuration unless it is None (so False wins), else from the profile. Skills, tools
    and subagents are the profile's followed by the configuration's; None only when neither says any.
    """
    base = config.profile or AgentProfile()
    single = ("name", "description", "model", "instructions", "thinking_level", "compaction", "max_tokens")
    merged: dict[str, Any] = {field: _first(getattr(config, field), getattr(base, field)) for field in single}
    return AgentProfile(
        **merged,
        skills=_joined("skills", base.skills, config.skills),
        tools=_joined("tools", base.tools, config.tools),
        subagents=_joined("subagents", base.subagents, config.subagents),
    )


def config_from(value: object) -> AgentRuntimeConfig:
    """Read what an initializer returned: a configuration, a profile, or a mapping of a configuration's fields.

    Raises:
        ConfigurationError: it is none of these, or a field is unknown.
    """
    if isinstance(value, AgentRuntimeConfig):
        return value
    if isinstance(value, AgentProfile):
        return AgentRuntimeConfig(profile=value)
    if not isinstance(value, Mapping):
        raise invalid(
            f"An agent initializer returned {type(value).__name__}.",
            "Return AgentRuntimeConfig, AgentProfile or a mapping of their fields.",
        )
    fields = _known(cast("Mapping[str, Any]", value), AgentRuntimeConfig)
    if fields.get("profile") is not None:
        fields["profile"] = define_agent_profile(fields["profile"])
    return AgentRuntimeConfig(**fields)


def check_profile(profile: AgentProfile) -> None:
    """Raise ``ConfigurationError`` for the first field whose value cannot work."""
    if profile.name is not None and not (_is_said(profile.name) and PROFILE_NAME.fullmatch(profile.name)):
        raise invalid(
            f"An agent profile has the name {profile.name!r}.",
            "Start it with a letter and go on with letters, digits, underscores or dashes.",
        )
    for field, value in (("description", profile.description), ("instructions", profile.instructions)):
        if value is not None and not _is_said(value):
            raise invalid(f"The {field} of an agent must be a non-blank string.", "Write some text, or leave it out.")
    if profile.model not in (None, False) and not _is_said(profile.model):
        raise invalid("The model of an agent must be a non-blank string, False or None.", "Write provider/model-id.")
    if profile.thinking_level is not None and profile.thinking_level not in get_args(ThinkingLevel):
        raise invalid(
            f"The thinking_level {profile.thinking_level!r} is not known.",
            f"Use one of {', '.join(get_args(ThinkingLevel))}.",
        )
    if profile.max_tokens is not None and not (type(profile.max_tokens) is int and profile.max_tokens > 0):
        raise invalid("The max_tokens of an agent must be a positive whole number.", "Write a number, or leave it out.")
    _check_tools(profile.tools)
    _refuse_later(profile)


def check_config(config: AgentRuntimeConfig) -> None:
    """Raise ``ConfigurationError`` for what a configuration says besides a profile's fields and cannot work."""
    if given := [field for field, value in (("cwd", config.cwd), ("sandbox", config.sandbox)) if value is not None]:
        raise _later(given)
    if config.profile is not None and type(config.profile) is not AgentProfile:
        raise invalid(f"The profile of an agent is a {type(config.profile).__name__}.", "Pass an AgentProfile.")
    store = config.persist
    if store is not None and not all(callable(getattr(store, verb, None)) for verb in ("append", "load", "delete")):
        raise invalid(
            f"The persist of an agent is a {type(store).__name__}, which does not keep sessions.",
            "Pass an object with the methods of SessionStore: append, load and delete.",
        )


def limits_from(limits: AgentLimits | Mapping[str, Any] | None) -> AgentLimits:
    """Read limits, given as ``AgentLimits``, a mapping of its fields, or None for the defaults.

    Raises:
        ConfigurationError: a limit is unknown or out of range.
    """
    if limits is None:
        return AgentLimits()
    fields = msgspec.structs.asdict(limits) if isinstance(limits, AgentLimits) else limits
    try:
        return msgspec.convert(fields, AgentLimits)
    except msgspec.ValidationError as error:
        raise invalid(
            f"The limits of an agent cannot be used: {error}.", "See AgentLimits for what there is."
        ) from error


def invalid(what: str, fix: str) -> ConfigurationError:
    """Make the error of a definition that cannot work."""
    return ConfigurationError(what, fix=fix)


def _known(mapping: Mapping[str, Any], kind: type[AgentProfile]) -> dict[str, Any]:
    word = "runtime config" if kind is AgentRuntimeConfig else "agent profile"
    if "limits" in mapping:
        raise invalid(
            f"There is an unknown {word} field 'limits'.",
            "Pass them to create_agent(initialize, limits=…): they are checked before the initializer runs.",
        )
    for key in mapping:
        if key not in kind.__struct_fields__:
            raise invalid(f"There is an unknown {word} field {key!r}.", f"Use {', '.join(kind.__struct_fields__)}.")
    return dict(mapping)


def _check_tools(tools: object) -> None:
    seen: set[str] = set()
    for place, tool in enumerate(_listed("tools", tools)):
        if not isinstance(tool, ToolDefinition):
            raise invalid(
                f"tools[{place}] of an agent profile is a {type(tool).__name__}.",
                "Make it with @tool or define_tool(); only an initializer's own `tools` may hold plain functions.",
            )
        if not _is_said(tool.description):
            raise invalid(
                f"tools[{place}] ({tool.name!r}) has no description.",
                "Say in its docstring or description what it is for; the model chooses by it.",
            )
        if tool.name in seen:
            raise invalid(f"An agent has a duplicate tool name: {tool.name!r}.", "Give each tool a name of its own.")
        seen.add(tool.name)


def _refuse_later(profile: AgentProfile) -> None:
    """Refuse what this release does not run, rather than ignore it."""
    later: dict[str, object] = {"skills": profile.skills, "subagents": profile.subagents}
    given = [field for field, value in later.items() if _listed(field, value)]
    given += ["compaction"] if profile.compaction not in (None, False) else []
    if given:
        raise _later(given)


def _later(fields: list[str]) -> ConfigurationError:
    return invalid(f"An agent has {' and '.join(fields)}, which is not in this release.", "Leave it out for now.")


def _listed(field: str, value: object) -> Sequence[object]:
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise invalid(f"The {field} of an agent must be a list.", f"Write {field}=[…].")
    return cast("Sequence[object]", value)


def _joined(field: str, first: object, second: object) -> tuple[object, ...] | None:
    return None if first is None and second is None else (*_listed(field, first), *_listed(field, second))


def _first(inline: object, inherited: object) -> object:
    return inherited if inline is None else inline


def _is_said(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
