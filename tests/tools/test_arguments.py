"""What a model writes as arguments is hostile input: it is decoded exactly, or refused in words it can act on."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.errors import ToolError
from pyflue.tools.define import define_tool, tool
from pyflue.tools.tool import ToolDefinition


@tool
def typed(n: int, anything: Any = None) -> str:
    """Take a number."""
    return str(n)


schemed = define_tool(
    "schemed",
    lambda arguments: str(arguments["n"]),
    parameters={
        "type": "object",
        "properties": {"n": {"type": "integer"}, "anything": {}},
        "required": ["n"],
        "additionalProperties": False,
    },
)


@pytest.mark.parametrize("definition", [typed, schemed], ids=["typed", "schemed"])
@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"n":"1"}', "$.n"),
        (b'{"n":true}', "$.n"),
        (b'{"n":1.5}', "$.n"),
        (b"{}", "required field `n`"),
        (b'{"n":1,"m":2}', "unknown field `m`"),
        (b'{"n":1,"n":2}', "`n` is given twice"),
        (b'{"n":1,"anything":{"a":{"b":1,"b":2}}}', "`b` is given twice"),
        (b'{"n":NaN}', "malformed"),
        (b'{"n":Infinity}', "malformed"),
        (b'{"n":1e999}', "out of range"),
        (b'{"n":' + b"9" * 5_000 + b"}", "out of range"),
        (b'{"n":1,"anything":"\xff\xfe"}', "UTF-8"),
        (b'{"n":1,"anything":"\\ud800"}', "do not fit"),
        (b'{"n":1,"anything":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "too deeply"),
        (b'{"n":1,"anything":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "too deeply"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b'"{}"', "Expected `object`, got `str`"),
        (b'{"n":1', "do not fit"),
        (b'{"n":1} {"n":2}', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b"not json", "malformed"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_words_for_the_model(
    definition: ToolDefinition, raw: bytes, told: str
) -> None:
    with pytest.raises(ToolError) as refused:
        definition.decode(raw)

    message = str(refused.value)
    assert told in message
    assert definition.name in message
    assert "Traceback" not in message
    assert "msgspec" not in message
    assert len(message) < 400


@pytest.mark.parametrize("definition", [typed, schemed], ids=["typed", "schemed"])
def test_what_fits_comes_out_as_it_was_written(definition: ToolDefinition) -> None:
    raw = b'{"n":12345678901234567890123,"anything":{"z":[1,null],"a":"\\u0000"}}'

    assert definition.decode(raw) == {"n": 12345678901234567890123, "anything": {"z": [1, None], "a": "\0"}}


def test_no_input_at_all_is_an_empty_object() -> None:
    @tool
    def ping() -> str:
        """Ping."""
        return "pong"

    assert ping.decode(b"") == {}
    assert define_tool("x", lambda arguments: "").decode(b"") == {}


def test_parameters_that_are_not_given_are_left_to_the_functions_defaults() -> None:
    assert typed.decode(b'{"n":1}') == {"n": 1}


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        ({"type": ["string", "null"]}, 1, "Expected `string | null`, got `integer` - at `$.v`"),
        ({"enum": ["a", 1]}, True, 'Expected one of ["a",1] - at `$.v`'),
        ({"const": "on"}, "off", 'Expected "on" - at `$.v`'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "Expected `string`"),
        ({"type": "number", "minimum": 0}, -0.5, "a number >= 0"),
        ({"type": "integer", "maximum": 9}, 10, "a number <= 9"),
        ({"type": "string", "minLength": 1}, "", "a length >= 1"),
        ({"type": "string", "maxLength": 2}, "abc", "a length <= 2"),
        ({"type": "array", "maxItems": 1}, [1, 2], "a number of items <= 1"),
        ({"type": "array", "items": {"type": "string"}}, ["a", 1], "at `$.v[1]`"),
        ({"type": "object", "required": ["x"]}, {}, "missing required field `x` - at `$.v`"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"x": 1}, "at `$.v.x`"),
        ({"type": "object", "additionalProperties": False}, {"x": 1}, "unknown field `x` - at `$.v`"),
        ({"properties": {"x": False}}, {"x": 1}, "Nothing is allowed here - at `$.v.x`"),
    ],
)
def test_a_hand_written_schema_is_enforced(schema: dict[str, Any], value: Any, told: str) -> None:
    definition = define_tool("t", lambda arguments: "", parameters={"type": "object", "properties": {"v": schema}})

    with pytest.raises(ToolError) as refused:
        definition.decode(msgspec.json.encode({"v": value}))

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 1.0),
        ({"type": "number"}, 1),
        ({"type": ["string", "null"]}, None),
        ({"enum": [1, "a"]}, "a"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ({"type": "string", "minLength": 3, "maxLength": 3}, "äöü"),
        ({"type": "array", "items": {"type": "object", "required": ["a"]}}, [{"a": 1}, {"a": 2}]),
        ({"type": "string", "pattern": "^(a+)+$"}, "a" * 40 + "!"),
        (True, {"anything": 1}),
    ],
)
def test_what_a_hand_written_schema_allows_passes(schema: Any, value: Any) -> None:
    definition = define_tool("t", lambda arguments: "", parameters={"type": "object", "properties": {"v": schema}})

    assert definition.decode(msgspec.json.encode({"v": value})) == {"v": value}


@given(st.binary(max_size=200) | st.text(string.printable, max_size=200).map(str.encode))
def test_any_bytes_are_decoded_or_refused_and_nothing_else_happens(raw: bytes) -> None:
    for definition in (typed, schemed):
        try:
            decoded = definition.decode(raw)
        except ToolError:
            continue
        assert isinstance(decoded["n"], int)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.integers(), json_values)
def test_both_kinds_of_tool_read_the_same_values(n: int, anything: Any) -> None:
    raw = msgspec.json.encode({"n": n, "anything": anything})

    assert typed.decode(raw) == schemed.decode(raw) == {"n": n, "anything": anything}
