"""``@tool`` and ``define_tool``: what the model is told, and what cannot be a tool."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from msgspec import Meta, Struct

from pyflue.errors import ConfigurationError, ToolError
from pyflue.tools.define import define_tool, tool
from pyflue.tools.tool import ToolDefinition

if TYPE_CHECKING:
    from pyflue.tools.tool import ToolContext


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A place on the map."""

    x: float
    y: float = 0.0


class Filters(TypedDict, total=False):
    owner: str


class Node(Struct):
    name: str
    children: list[Node] = []


def schema_of(definition: ToolDefinition) -> dict[str, Any]:
    return msgspec.json.decode(definition.spec.input_schema)


def test_a_function_becomes_a_tool_by_its_name_docstring_and_type_hints() -> None:
    @tool
    async def find_orders(
        customer: Annotated[str, Meta(description="Their e-mail address", min_length=3)], limit: int = 10
    ) -> list[str]:
        """Find a customer's
        latest orders.

        Not shown to the model.
        """
        return [customer] * limit

    assert find_orders.name == "find_orders"
    assert find_orders.description == "Find a customer's latest orders."
    assert find_orders.retry == "never"
    assert schema_of(find_orders) == {
        "type": "object",
        "properties": {
            "customer": {"type": "string", "description": "Their e-mail address", "minLength": 3},
            "limit": {"type": "integer"},
        },
        "required": ["customer"],
        "additionalProperties": False,
    }


def test_what_the_decorator_is_told_wins_over_the_function() -> None:
    @tool(name="look-up", description="Look it up.", retry="safe", timeout=2.5)
    def lookup(q: str) -> str:
        """Do something else."""
        return q

    assert (lookup.name, lookup.description, lookup.retry, lookup.timeout) == ("look-up", "Look it up.", "safe", 2.5)


def test_the_docstrings_args_section_describes_parameters_that_have_no_description() -> None:
    @tool
    def move(a: Annotated[str, Meta(description="From here")], b: str, c: int = 1) -> str:
        """Move something.

        Args:
            a: ignored, Meta has said it
            b (str): where to; a name
                or: an address
            c: how often

        Returns:
            b: nothing for the model
        """
        return a + b

    properties = schema_of(move)["properties"]
    assert properties["a"]["description"] == "From here"
    assert properties["b"]["description"] == "where to; a name or: an address"
    assert properties["c"]["description"] == "how often"


def test_structured_types_reach_the_function_as_what_they_are() -> None:
    @tool
    def paint(
        at: Point,
        colour: Colour,
        how: Literal["fast", "neat"],
        where: Filters,
        tree: Node,
        more: list[Point] | None = None,
    ) -> str:
        """Paint."""
        return ""

    decoded = paint.decode(
        b'{"at":{"x":1},"colour":"red","how":"neat","where":{"owner":"o"},"tree":{"name":"r","children":[{"name":"c"}]}}'
    )

    assert decoded == {
        "at": Point(1.0),
        "colour": Colour.RED,
        "how": "neat",
        "where": {"owner": "o"},
        "tree": Node("r", [Node("c")]),
    }
    schema = schema_of(paint)
    assert schema["type"] == "object"
    assert schema["properties"]["at"] == {"$ref": "#/$defs/Point"}
    assert schema["$defs"]["Point"]["description"] == "A place on the map."
    assert schema["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    with pytest.raises(ToolError, match=r"\$\.tree\.children\[0\]\.name"):
        paint.decode(
            b'{"at":{"x":1},"colour":"red","how":"neat","where":{},"tree":{"name":"r","children":[{"name":1}]}}'
        )


def test_the_context_is_passed_by_whatever_name_and_never_shown() -> None:
    @tool
    def charge(amount: int, ctx: ToolContext) -> str:
        """Charge."""
        return ctx.idempotency_key

    assert charge.wants_context
    assert charge.context_parameter == "ctx"
    assert list(schema_of(charge)["properties"]) == ["amount"]
    with pytest.raises(ToolError, match="unknown field `ctx`"):
        charge.decode(b'{"amount":1,"ctx":{}}')


def test_a_parameter_without_annotation_is_named() -> None:
    def lookup(q) -> str:
        return str(q)

    with pytest.raises(ConfigurationError, match="Parameter 'q' of tool 'lookup' has no type annotation"):
        tool(lookup)


def test_parameters_that_cannot_be_named_or_written_in_json_are_refused() -> None:
    def star(*args: str) -> str:
        return ""

    def stars(**kwargs: str) -> str:
        return ""

    def positional(a: str, /) -> str:
        return a

    def foreign(a: ToolDefinition) -> str:
        return a.name

    def custom(a: object) -> str:
        return ""

    def unicode(größe: int) -> str:  # noqa: PLC2401
        return ""

    for function, parameter in (
        (star, "args"),
        (stars, "kwargs"),
        (positional, "a"),
        (foreign, "a"),
        (custom, "a"),
        (unicode, "größe"),
    ):
        with pytest.raises(ConfigurationError, match=f"Parameter '{parameter}' of tool '{function.__name__}'"):
            tool(function)


def test_a_parameter_named_as_a_class_names_its_own_is_refused() -> None:
    def mangled(__slot: str) -> str:
        return __slot

    def dunder(__init__: str = "") -> str:
        return __init__

    for function in (mangled, dunder):
        with pytest.raises(ConfigurationError, match="has a name it cannot have"):
            tool(function)


def test_hints_that_cannot_be_resolved_are_a_configuration_error() -> None:
    def lookup(q: Missing) -> str:  # noqa: F821
        return q

    with pytest.raises(ConfigurationError, match="type hints of tool 'lookup' cannot be read"):
        tool(lookup)


def test_generators_are_refused() -> None:
    async def stream(q: str):
        yield q

    with pytest.raises(ConfigurationError, match="generator"):
        tool(stream)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "x" * 65, "größe", "a\n"])
def test_names_the_models_api_refuses_are_refused_here(name: str) -> None:
    with pytest.raises(ConfigurationError):
        define_tool(name, lambda arguments: "")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "string"},
        {"type": "object", "anyOf": []},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": {"type": "int"}}},
        {"type": "object", "properties": {"a b": {}}},
        {"type": "object", "required": "a"},
        {"type": "object", "properties": {"a": {"minimum": "1"}}},
        {"type": "object", "properties": {"a": {"enum": "abc"}}},
        {"type": "object", "properties": {"a": {"default": object()}}},
    ],
)
def test_a_schema_that_cannot_be_enforced_or_sent_is_refused_when_it_is_defined(parameters: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not a usable JSON Schema"):
        define_tool("t", lambda arguments: "", parameters=parameters)


def test_a_hand_written_schema_is_told_to_the_model_as_it_was_written() -> None:
    schema = {"type": "object", "properties": {"z": {"type": "string", "pattern": "^z"}, "a": {}}, "x-note": 1}

    definition = define_tool("t", lambda arguments: "", description="Do it.", parameters=schema)

    assert schema_of(definition) == schema
    assert list(schema_of(definition)["properties"]) == ["z", "a"]
    assert definition.spec.description == "Do it."


def test_changing_the_mapping_afterwards_changes_nothing() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    definition = define_tool("t", lambda arguments: "", parameters=schema)

    schema["additionalProperties"] = True

    with pytest.raises(ToolError):
        definition.decode(b'{"a":1}')


def test_a_function_that_takes_no_argument_cannot_run_a_hand_written_tool() -> None:
    with pytest.raises(ConfigurationError, match="takes no argument"):
        define_tool("t", lambda: "")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        define_tool("t", lambda arguments: "", timeout=timeout)


def test_configuration_errors_are_value_errors_as_they_were_in_0_2() -> None:
    with pytest.raises(ValueError, match="cannot be the name of a tool"):
        define_tool("no spaces", lambda arguments: "")
