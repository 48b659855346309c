"""What the documentation shows works: settings load, names exist, files are where it says."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

import pyflue
from pyflue.cli import COMMANDS
from pyflue.config import load_project

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCE = re.compile(r"`((?:pyflue|web|workers|tests|docs|bench|examples)/[\w./-]+)`")
COMMAND = re.compile(r"(?:^\$ |`)pyflue ([a-z]+)", re.MULTILINE)
TARGET = re.compile(r"(?:^\$ |`)make ([a-z]+)", re.MULTILINE)


def blocks(language: str) -> list[tuple[str, str]]:
    """Return ``(page, text)`` of every fenced block in that language."""
    found = [(page, block) for page in PAGES for block in BLOCK.findall(page.read_text("utf-8"))]
    return [(page.relative_to(ROOT).as_posix(), text) for page, (name, text) in found if name == language]


@pytest.mark.parametrize(("page", "text"), blocks("toml"))
def test_a_settings_example_loads(tmp_path: Path, page: str, text: str) -> None:
    file = tmp_path / "pyflue.toml"
    file.write_text(text, "utf-8")

    load_project(file, env={})


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_a_code_example_compiles_and_imports_what_is_public(page: str, text: str) -> None:
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]

    names = {alias.name for node in imports if node.module == "pyflue" for alias in node.names}

    assert {name for name in names if not hasattr(pyflue, name)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_file_the_documentation_names_exists(page: Path) -> None:
    named = set(SOURCE.findall(page.read_text("utf-8")))

    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_make_target_the_documentation_names_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")

    assert {name for name in TARGET.findall(page.read_text("utf-8")) if f"\n{name}:" not in makefile} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_command_the_documentation_names_exists(page: Path) -> None:
    assert set(COMMAND.findall(page.read_text("utf-8"))) - set(COMMANDS) == set()


def test_make_help_lists_the_doors() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    listed = {line.split()[1] for line in done.stdout.splitlines()}
    assert listed == {"help", "setup", "demo", "test", "check", "dev", "bench", "docs", "clean"}
