"""Make a tool's JSON Schema: from a function's type hints, or from a mapping someone wrote.

Parameters become the properties of one object that refuses unknown ones. Types are those msgspec knows: JSON
types, ``Literal``, enums, unions, dates, ``TypedDict``, dataclasses and Structs; limits and descriptions come from
``Annotated[…, msgspec.Meta(…)]``, and descriptions also from the docstring's ``Args:`` section.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_type_hints

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from pyflue.errors import ConfigurationError
from pyflue.tools.arguments import Rules
from pyflue.tools.tool import ToolContext

PROPERTY_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")  # what the Messages API takes as a property's key
_COMBINED: Final = ("anyOf", "oneOf", "allOf")
_REFERENCES: Final = "#/$defs/{name}"
_NAMED_KINDS: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Signature(Struct, frozen=True):
    """What a function's signature says: the Struct its arguments decode to, their schema, and where the context goes.

    ``context_parameter`` is empty when the function takes no ``ToolContext``.
    """

    arguments: type[Struct]
    schema: Raw
    context_parameter: str


def read_signature(function: Callable[..., Any], tool: str, described: Mapping[str, str]) -> Signature:
    """Read a function's parameters. ``described`` gives descriptions by parameter, for those without one.

    Raises:
        ConfigurationError: a parameter has no annotation, one that JSON cannot carry, or cannot be passed by name.
    """
    hints = _type_hints(function, tool)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    context_parameter = ""
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint is ToolContext:
            context_parameter = parameter.name
        elif parameter.kind not in _NAMED_KINDS:
            raise _unusable(tool, parameter.name, "cannot be passed by name (it is *args, **kwargs or positional-only)")
        elif parameter.name not in hints:
            raise _unusable(tool, parameter.name, "has no type annotation")
        else:
            _check_parameter(tool, parameter.name, hint)
            required = parameter.default is inspect.Parameter.empty
            fields.append((parameter.name, hint) if required else (parameter.name, hint | UnsetType, UNSET))
    try:
        struct = msgspec.defstruct("arguments", fields, forbid_unknown_fields=True, kw_only=True, module=__name__)
    except (TypeError, ValueError, RuntimeError) as error:  # names a class keeps for itself, such as __init__
        raise ConfigurationError(
            f"A parameter of tool {tool!r} has a name it cannot have.", cause=f"{error}.", fix="Rename it."
        ) from error
    return Signature(struct, _schema_of(struct, described), context_parameter)


def check_schema(tool: str, schema: Mapping[str, Any]) -> tuple[Raw, Rules]:
    """Return a hand-written parameter schema as JSON, and the rules arguments are checked by.

    Raises:
        ConfigurationError: it is not JSON, not of type object, or not one the model's API takes.
    """
    if schema.get("type") != "object" or any(key in schema for key in _COMBINED):
        raise _bad_schema(tool, 'it must have "type": "object" and no anyOf, oneOf or allOf at its top')
    try:
        encoded = msgspec.json.encode(schema)
        rules = msgspec.json.decode(encoded, type=Rules)
    except msgspec.ValidationError as error:
        raise _bad_schema(tool, str(error)) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad_schema(tool, "it holds something JSON cannot carry") from error
    for name in rules.properties:
        if not PROPERTY_NAME.fullmatch(name):
            raise _bad_schema(tool, f"property {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
    return Raw(encoded), rules


def _type_hints(function: Callable[..., Any], tool: str) -> dict[str, Any]:
    try:
        # ToolContext is often imported for type checkers only, so its name is given here.
        hints = get_type_hints(function, localns={"ToolContext": ToolContext}, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigurationError(
            f"The type hints of tool {tool!r} cannot be read.",
            cause=f"{error}.",
            fix="Annotate a plain function with names its module defines, or use define_tool() with a schema.",
        ) from error
    hints.pop("return", None)
    return hints


def _check_parameter(tool: str, name: str, hint: object) -> None:
    if not PROPERTY_NAME.fullmatch(name):
        raise _unusable(tool, name, "must be named with 1 to 64 ASCII letters, digits or underscores")
    try:
        msgspec.json.schema(hint)
        msgspec.json.Decoder(hint)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unusable(tool, name, "has a type that JSON cannot carry") from error


def _schema_of(struct: type[Struct], described: Mapping[str, str]) -> Raw:
    (top,), components = msgspec.json.schema_components([struct], ref_template=_REFERENCES)
    schema: dict[str, Any] = components.pop(str(top["$ref"]).rpartition("/")[2])
    schema.pop("title", None)
    for name, text in described.items():
        if name in schema["properties"]:
            schema["properties"][name].setdefault("description", text)
    if components:
        schema["$defs"] = components
    return Raw(msgspec.json.encode(schema))


def _unusable(tool: str, parameter: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"Parameter {parameter!r} of tool {tool!r} {reason}.",
        cause="The model is told of each parameter by name and type, and passes JSON.",
        fix="Annotate it with a JSON type such as str, int, list[str], a dataclass or a Struct.",
    )


def _bad_schema(tool: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The parameters of tool {tool!r} are not a usable JSON Schema.",
        cause=f"{reason[:1].upper()}{reason[1:]}.",
        fix='Write {"type": "object", "properties": {…}, "required": […]}.',
    )
