"""What the documentation shows works: settings load, names exist, files are where it says, commands parse."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import msgspec
import pytest
import typer.main

import pyflue
from pyflue.channels.choose import build_channels
from pyflue.cli import COMMANDS, build
from pyflue.config import SECRET_ENVIRONMENT, load_project
from tests.docs.pages import PAGES, ROOT, Block, Command, all_blocks, blocks, commands

SOURCE = re.compile(r"`((?:pyflue|web|workers|tests|docs|bench|examples)/[\w./-]+)`")
COMMAND = re.compile(r"(?:^\$ |`)pyflue ([a-z]+)", re.MULTILINE)
TARGET = re.compile(r"(?:^\$ |`)make ([a-z]+)", re.MULTILINE)
OTHER_PROGRAMS = {".", "cp", "docker", "echo", "export", "git", "openssl", "pip", "python3"}
SECRETS = {name: "whsec_c2VjcmV0LW9mLXR3ZW50eS1mb3VyLWJ5dGVz" for name in SECRET_ENVIRONMENT}


def named(part: object) -> str:
    return part.page if isinstance(part, Block) else ""


def shown_commands() -> list[tuple[str, Command]]:
    return [(block.page, command) for block in all_blocks("console", "sh") for command in commands(block)]


@pytest.mark.parametrize("block", all_blocks("toml"), ids=named)
def test_a_settings_example_loads_and_its_channels_can_be_built(tmp_path: Path, block: Block) -> None:
    file = tmp_path / "pyflue.toml"
    file.write_text(block.text, "utf-8")

    project = load_project(file, env=SECRETS)

    channels = project.settings.channels
    assert set(build_channels(channels, project.secrets, timeout=1.0)) == set(channels)


@pytest.mark.parametrize("block", all_blocks("python"), ids=named)
def test_a_code_example_compiles_and_imports_what_is_public(block: Block) -> None:
    imports = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.ImportFrom)]

    names = {alias.name for node in imports if node.module == "pyflue" for alias in node.names}

    assert names - set(pyflue.__all__) == set()


@pytest.mark.parametrize("block", all_blocks("json"), ids=named)
def test_a_json_example_is_json(block: Block) -> None:
    for line in block.text.splitlines():
        assert isinstance(msgspec.json.decode(line), dict)


@pytest.mark.parametrize(("page", "command"), shown_commands(), ids=lambda part: getattr(part, "line", part))
def test_a_command_line_is_one_that_can_be_typed(page: str, command: Command) -> None:
    program, *words = command.words

    if program == "pyflue":
        parse(words)
    elif program == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text("utf-8")
    elif program == "python":
        assert words[0] == "-m" or words[0] in {block.file for block in blocks(ROOT / page)}
    elif program.startswith(".venv/bin/"):
        assert program.removeprefix(".venv/bin/") in {"pytest", "python", "pyflue"}
    else:
        assert program in OTHER_PROGRAMS or "=" in program, f"is {program} a command?"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_command_named_in_a_sentence_has_the_options_it_is_named_with(page: Path) -> None:
    for line in re.findall(r"`pyflue ([^`\n]+)`", page.read_text("utf-8")):
        command = typer.main.get_command(build(line.split()[0])).commands[line.split()[0]]
        words = [word for word in line.split()[1:] if word != "|"]
        if inner := getattr(command, "commands", None):
            command = inner[words.pop(0)] if words else command
        taken = {spelling for parameter in command.params for spelling in parameter.opts}

        assert {word for word in words if word.startswith("-")} - taken - {"--help"} == set(), line


def parse(words: list[str]) -> None:
    """Have the command line read these words as `pyflue` would, without running anything."""
    command = typer.main.get_command(build(words[0]))
    name, rest = "pyflue", words
    while inner := getattr(command, "commands", None):
        name, *rest = rest
        assert name in inner, f"pyflue has no {' '.join(words)}"
        command = inner[name]
    if name != "--help":
        command.make_context(name, rest)


def test_the_health_check_of_composes_worker_is_a_command() -> None:
    words = re.findall(r'test: \["CMD", "pyflue", (.+)\]', (ROOT / "compose.yaml").read_text("utf-8"))

    assert words
    for line in words:
        parse(re.findall(r'"([^"]+)"', line))


@pytest.mark.parametrize("words", [["logs"], ["web", "--prot", "1"], ["dispatches", "lost"], ["send", "pigeon", "hi"]])
def test_a_command_line_that_cannot_be_typed_is_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)missing|no such option|no dispatches lost|invalid|not one of"):
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_file_the_documentation_names_exists(page: Path) -> None:
    mentioned = set(SOURCE.findall(page.read_text("utf-8")))

    assert {path for path in mentioned if not (ROOT / path).exists()} == set()


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


def test_every_decision_has_a_number_of_its_own_and_is_listed() -> None:
    records = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))

    assert [name[:4] for name in records] == [f"{number:04d}" for number in range(1, len(records) + 1)]
    for listing in ("docs/decisions/index.md", "mkdocs.yml"):
        text = (ROOT / listing).read_text("utf-8")
        assert [name for name in records if name not in text] == []
