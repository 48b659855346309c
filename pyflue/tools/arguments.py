"""Decode what a model wrote as a tool's arguments, treating it as hostile input.

Refused with a ``ToolError`` the model can act on: JSON that is malformed, not UTF-8, not an object, nested too
deeply, with numbers out of range, ``NaN`` or a key given twice (readers disagree on which one counts, so an
approval could show one value and the tool act on another); and arguments that do not fit the schema.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from pyflue.errors import ToolError

T = TypeVar("T")
EMPTY: Final = b"{}"
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonType = Literal["object", "array", "string", "integer", "number", "boolean", "null"]

_TYPES: Final[dict[JsonType, tuple[type, ...]]] = {
    "boolean": (bool,),  # first: a bool is an int to Python
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


class Rules(Struct, frozen=True, rename="camel"):
    """What is checked of a JSON Schema. Other keywords are for the model only: a tool checks itself what they promise.

    ``additional_properties`` false refuses properties that are not listed; a schema is applied to them.
    """

    type: JsonType | tuple[JsonType, ...] = ()
    enum: tuple[Any, ...] | UnsetType = UNSET
    const: Any = UNSET
    any_of: tuple[Rules | bool, ...] = ()
    properties: dict[str, Rules | bool] = {}
    required: tuple[str, ...] = ()
    additional_properties: Rules | bool = True
    items: Rules | bool = True
    minimum: int | float | None = None
    maximum: int | float | None = None
    min_length: int | None = None
    max_length: int | None = None
    min_items: int | None = None
    max_items: int | None = None


class TypedArguments:
    """Decodes into a Struct made from a function's type hints; parameters not given are left to its defaults."""

    def __init__(self, tool: str, struct: type[Struct]) -> None:
        self._tool = tool
        self._decoder = msgspec.json.Decoder(struct)
        self._fields = struct.__struct_fields__

    def __call__(self, raw: bytes) -> dict[str, Any]:
        decoded = _decode(self._tool, self._decoder, raw or EMPTY)
        given = ((field, getattr(decoded, field)) for field in self._fields)
        return {field: value for field, value in given if value is not UNSET}


class SchemaArguments:
    """Decodes into plain JSON values and checks them against the rules of a JSON Schema."""

    def __init__(self, tool: str, rules: Rules) -> None:
        self._tool = tool
        self._decoder = msgspec.json.Decoder(dict[str, Any])
        self._rules = rules

    def __call__(self, raw: bytes) -> dict[str, Any]:
        decoded = _decode(self._tool, self._decoder, raw or EMPTY)
        if reason := mismatch(decoded, self._rules):
            _refuse(self._tool, reason)
        return decoded


def mismatch(value: Json, rules: Rules | bool, path: str = "$") -> str:
    """Say where and how a JSON value breaks the rules; empty when it fits."""
    if isinstance(rules, bool):
        return "" if rules else f"Nothing is allowed here - at `{path}`"
    return (
        _type_mismatch(value, rules, path)
        or _choice_mismatch(value, rules, path)
        or _range_mismatch(value, rules, path)
        or _inner_mismatch(value, rules, path)
    )


def _decode(tool: str, decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    try:
        decoded = decoder.decode(raw)
        json.loads(raw, object_pairs_hook=_refuse_duplicates)
    except RecursionError:
        _refuse(tool, "The JSON is nested too deeply")
    except UnicodeDecodeError:
        _refuse(tool, "The JSON is not valid UTF-8")
    except (msgspec.DecodeError, _DuplicateKeyError) as error:
        _refuse(tool, str(error))
    return decoded


def _refuse(tool: str, reason: str) -> NoReturn:
    raise ToolError(
        f"The arguments of {tool} do not fit.", cause=f"{reason}.", fix="Correct them and call it again."
    ) from None


class _DuplicateKeyError(ValueError):
    pass


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _DuplicateKeyError(f"The key `{key[:64]}` is given twice")
        seen.add(key)


def _type_mismatch(value: Json, rules: Rules, path: str) -> str:
    names = (rules.type,) if isinstance(rules.type, str) else rules.type
    if not names or any(_is_type(value, name) for name in names):
        return ""
    got = next(name for name in _TYPES if _is_type(value, name))
    return f"Expected `{' | '.join(names)}`, got `{got}` - at `{path}`"


def _is_type(value: Json, name: JsonType) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()  # JSON Schema: 1.0 is an integer
    return isinstance(value, _TYPES[name])


def _choice_mismatch(value: Json, rules: Rules, path: str) -> str:
    if rules.enum is not UNSET and not any(_same(value, choice) for choice in rules.enum):
        return f"Expected one of {_shown(rules.enum)} - at `{path}`"
    if rules.const is not UNSET and not _same(value, rules.const):
        return f"Expected {_shown(rules.const)} - at `{path}`"
    reasons = [mismatch(value, branch, path) for branch in rules.any_of]
    return reasons[0] if reasons and all(reasons) else ""


def _same(value: object, choice: object) -> bool:
    """Compare as JSON does: ``true`` is not ``1``."""
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()[:200]


def _range_mismatch(value: Json, rules: Rules, path: str) -> str:
    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return _outside(value, "a number", (rules.minimum, rules.maximum), path)
    if isinstance(value, str):
        return _outside(len(value), "a length", (rules.min_length, rules.max_length), path)
    if isinstance(value, list):
        return _outside(len(value), "a number of items", (rules.min_items, rules.max_items), path)
    return ""


def _outside(size: float, what: str, bounds: tuple[float | None, float | None], path: str) -> str:
    least, most = bounds
    if least is not None and size < least:
        return f"Expected {what} >= {least} - at `{path}`"
    if most is not None and size > most:
        return f"Expected {what} <= {most} - at `{path}`"
    return ""


def _inner_mismatch(value: Json, rules: Rules, path: str) -> str:
    if isinstance(value, dict):
        return _object_mismatch(value, rules, path)
    if isinstance(value, list) and rules.items is not True:
        found = (mismatch(item, rules.items, f"{path}[{place}]") for place, item in enumerate(value))
        return next((reason for reason in found if reason), "")
    return ""


def _object_mismatch(value: dict[str, Json], rules: Rules, path: str) -> str:
    for name in rules.required:
        if name not in value:
            return f"Object missing required field `{name}` - at `{path}`"
    for name, item in value.items():
        if name not in rules.properties and rules.additional_properties is False:
            return f"Object contains unknown field `{name[:64]}` - at `{path}`"
        inner = rules.properties.get(name, rules.additional_properties)
        if reason := mismatch(item, inner, f"{path}.{name[:64]}"):
            return reason
    return ""
