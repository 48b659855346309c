"""The reference of the commands says what the command line takes, and what it answers with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import typer

from pyflue import cli
from pyflue.cli import logs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
DOCTOR = [ROOT / "pyflue" / "cli" / "doctor.py", *sorted((ROOT / "pyflue" / "cli" / "checks").glob("*.py"))]


def section(heading: str) -> str:
    """Return what stands under a heading, up to the next one."""
    _, _, after = PAGE.partition(f"\n{heading}\n")
    return after.partition("\n#")[0]


def first_cells(text: str) -> list[str]:
    return [row.split(" | ")[0].strip("| ") for row in text.splitlines() if row.startswith("| ")][1:]


def command_lines() -> Iterator[tuple[str, set[str]]]:
    """Yield every command as typed, with all its arguments and options as the parser itself knows them."""
    for name in cli.COMMANDS:
        group = typer.main.get_command(cli.build(name))
        command = group.commands[name]
        inner = getattr(command, "commands", None)
        for line, each in (
            {f"{name} {verb}": sub for verb, sub in inner.items()}.items() if inner else [(name, command)]
        ):
            taken = {
                spelling.upper() if parameter.param_type_name == "argument" else spelling
                for parameter in each.params
                for spelling in (*parameter.opts, *parameter.secondary_opts)
            }
            yield f"pyflue {line}", taken


@pytest.mark.parametrize(
    ("line", "taken"), list(command_lines()), ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_argument_and_option_is_documented_and_no_other(line: str, taken: set[str]) -> None:
    documented = {name for cell in first_cells(section(f"### {line}")) for name in re.findall(r"`([^`]+)`", cell)}

    assert documented == taken


def test_every_command_line_is_documented_and_no_other() -> None:
    assert re.findall(r"^### (pyflue .*)$", PAGE, re.MULTILINE) == [line for line, _ in command_lines()]


def test_every_exit_code_is_documented_and_no_other() -> None:
    codes = {0, cli.EXIT_FAILURE, cli.EXIT_USAGE, *logs.EXIT_CODES.values(), cli.EXIT_INTERRUPTED, cli.EXIT_PIPE_CLOSED}

    assert [int(cell) for cell in first_cells(section("## Exit codes"))] == sorted(codes)


def test_every_check_of_doctor_is_documented_and_no_other() -> None:
    named: set[str] = set()
    for path in DOCTOR:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("ok", "warn", "fail")
            ):
                name = node.args[0]
                named |= {str(name.value)} if isinstance(name, ast.Constant) else set()
    named |= {"agent NAME", "channel NAME"}  # the two that are made from a name

    assert {cell.strip("`") for cell in first_cells(section("## What doctor checks"))} == named


def test_the_modules_of_the_commands_exist() -> None:
    assert all(hasattr(import_module(f"pyflue.cli.{name}"), "command") for name in cli.COMMANDS)
