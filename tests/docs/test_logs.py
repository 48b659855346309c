"""Every line the code logs is on the page of log events, with its level and its fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "logs.md"
PACKAGES = ("pyflue", "web/pyflue_web", "workers/pyflue_workers")
ROW = re.compile(r"^\| `(?P<event>[a-z_.]+)` \| (?P<levels>[a-z, ]+) \|(?P<fields>[^|]*)\| [^|]{10,} \|$", re.MULTILINE)
LEVELS = {"debug", "info", "warning", "error"}


class Line(NamedTuple):
    """What one kind of line looks like: its level and the fields it is given."""

    level: str
    fields: frozenset[str]


def modules() -> Iterator[ast.Module]:
    """Yield what runs in production; the demo and the test kit print for people and log nothing of their own."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "testing" not in path.parts:
                yield ast.parse(path.read_text("utf-8"), str(path))


def called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def line_of(call: ast.Call) -> Line:
    """Read the level and the fields of a ``log(…)`` call; a trace is a field."""
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    level = given.pop("level", ast.Constant("info"))
    assert isinstance(level, ast.Constant), f"line {call.lineno}: the level must be written out"
    fields = {"trace" if name == "exc_info" else name for name in given}
    return Line(str(level.value), frozenset(fields))


def logged() -> dict[str, set[Line]]:
    """Return every event that is logged by name, also through a function of the same module that takes the name."""
    found: dict[str, set[Line]] = {}
    for module in modules():
        passing = {"log": [], **dict(passing_on(module))}
        for call in ast.walk(module):
            if not (isinstance(call, ast.Call) and called(call) in passing and call.args):
                continue
            match call.args[0]:
                case ast.Constant(value=str() as event):
                    inside = passing[called(call)]
                    own = line_of(call)
                    lines = {Line(line.level, line.fields | own.fields) for line in inside} if inside else {own}
                    found.setdefault(event, set()).update(lines)
                case _:
                    continue
    return found


def passing_on(module: ast.Module) -> Iterator[tuple[str, list[Line]]]:
    """Yield functions that log an event they are given the name of, with the lines they write."""
    for function in module.body:
        if not isinstance(function, ast.FunctionDef) or function.name in ("log", "write") or not function.args.args:
            continue
        name = function.args.args[0].arg
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args]
        passed = [call for call in calls if isinstance(call.args[0], ast.Name) and call.args[0].id == name]
        lines = [line_of(call) for call in passed if called(call) == "log"]
        lines += [Line(called(call), frozenset()) for call in passed if called(call) in LEVELS]
        if lines:
            yield function.name, lines


def documented() -> dict[str, list[re.Match[str]]]:
    rows: dict[str, list[re.Match[str]]] = {}
    for row in ROW.finditer(PAGE.read_text("utf-8")):
        rows.setdefault(row["event"], []).append(row)
    return rows


def test_the_page_lists_exactly_the_events_the_code_logs() -> None:
    assert set(documented()) == {*logged(), "library.logged"}


def test_no_event_is_listed_twice() -> None:
    assert [event for event, rows in documented().items() if len(rows) > 1] == []


@pytest.mark.parametrize(
    ("event", "lines"), sorted(logged().items()), ids=lambda part: part if isinstance(part, str) else ""
)
def test_an_event_is_documented_with_its_levels_and_fields(event: str, lines: set[Line]) -> None:
    assert event in documented(), f"{event} is not in docs/reference/logs.md"
    (row,) = documented()[event]

    assert set(row["levels"].split(", ")) == {line.level for line in lines}
    assert set(re.findall(r"`(\w+)`", row["fields"])) == set[str]().union(*(line.fields for line in lines))


def test_the_ids_bound_at_the_doors_are_documented() -> None:
    bound = {
        keyword.arg
        for module in modules()
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and called(call) == "bind"
        for keyword in call.keywords
    }

    doors = PAGE.read_text("utf-8").partition("## Ids")[2].partition("\n## ")[0]
    assert bound - {None} == set(re.findall(r"^\| `(\w+)` \|", doors, re.MULTILINE))


def test_the_walk_sees_what_is_logged_through_another_function() -> None:
    assert logged()["worker.rescue_failed"] == {
        Line("warning", frozenset({"reason"})),
        Line("error", frozenset({"error", "trace"})),
    }
    assert logged()["bell.lost"] == {Line("warning", frozenset({"reason", "dropped"}))}
