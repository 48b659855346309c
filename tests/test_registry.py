"""Discovery: which files are agents, what they are called, and that a broken one harms no other."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyflue.agents import AgentCreateContext, build, create_agent
from pyflue.errors import BrokenAgentError, ConfigurationError, UnknownAgentError
from pyflue.registry import Registry, discover

AGENT = "from pyflue.agents import create_agent\ndefault = create_agent(lambda: {'instructions': %r})\n"
DIRECTORIES = ("agents", "src/agents")

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def _unchanged_imports() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str = AGENT % "hello") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write


async def instructions_of(registry: Registry, name: str) -> str:
    return (await build(registry.get(name), AgentCreateContext(), name)).instructions


def test_an_agent_is_named_after_its_path(tmp_path: Path, write: Write) -> None:
    write("agents/hello.py", AGENT % "")
    write("agents/support/triage.py", AGENT % "")
    write("src/agents/billing.py", AGENT % "")

    registry = discover(tmp_path, DIRECTORIES)

    assert registry.names == {"hello", "support.triage", "billing"}
    assert registry.broken == {}


def test_files_and_folders_that_are_not_agents_are_not_run(tmp_path: Path, write: Write) -> None:
    for name in (
        "_shared.py",
        "skills/pdf/fill.py",
        ".hidden/x.py",
        "__pycache__/x.py",
        "_lib/x.py",
        "notes.md",
        ".x.py",
    ):
        write(f"agents/{name}", "raise SystemExit('this must not run')")

    registry = discover(tmp_path, DIRECTORIES)

    assert (registry.names, registry.broken) == (frozenset(), {})


async def test_the_later_directory_wins_a_name(tmp_path: Path, write: Write) -> None:
    write("agents/hello.py", AGENT % "first")
    write("src/agents/hello.py", AGENT % "second")

    assert await instructions_of(discover(tmp_path, DIRECTORIES), "hello") == "second"


async def test_default_is_preferred_over_agent(tmp_path: Path, write: Write) -> None:
    write("agents/one.py", (AGENT % "default") + "agent = create_agent(lambda: {'instructions': 'agent'})\n")
    write("agents/two.py", (AGENT % "agent").replace("default", "agent", 1))

    registry = discover(tmp_path, DIRECTORIES)

    assert await instructions_of(registry, "one") == "default"
    assert await instructions_of(registry, "two") == "agent"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import does_not_exist_anywhere\n", "agents/broken.py, line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n\ndef f(:\n", "agents/broken.py, line 3: SyntaxError: invalid syntax"),
        ("x = 1\nraise SystemExit('bye')\n", "agents/broken.py, line 2: SystemExit: bye"),
        ("class Exit(BaseException): ...\nraise Exit('bye')\n", "agents/broken.py, line 2: Exit: bye"),
        ("raise RuntimeError\n", "agents/broken.py, line 1: RuntimeError"),
        ("class Wordless(Exception):\n    __str__ = None\nraise Wordless\n", "line 3: Wordless"),
        ("x = 1\n", "neither `default` nor `agent`"),
        ("default = 5\n", "`default` is a int"),
        (
            "from pyflue.agents import create_agent\ndefault = create_agent(5)\n",
            "line 2: create_agent() needs an initializer",
        ),
        ("\0", "agents/broken.py"),
    ],
)
def test_a_broken_file_is_told_of_and_the_others_work(tmp_path: Path, write: Write, text: str, told: str) -> None:
    write("agents/broken.py", text)
    write("agents/fine.py", AGENT % "")

    registry = discover(tmp_path, DIRECTORIES)

    assert registry.names == {"fine"}
    assert told in registry.broken["broken"]
    assert str(tmp_path) not in registry.broken["broken"]
    with pytest.raises(BrokenAgentError) as refused:
        registry.get("broken")
    assert registry.broken["broken"] in str(refused.value)


@pytest.mark.parametrize("name", ["two words.py", "a.b.py", "größe.py"])
def test_a_file_whose_path_makes_no_name_is_told_of(tmp_path: Path, write: Write, name: str) -> None:
    write(f"agents/{name}", AGENT % "")

    registry = discover(tmp_path, DIRECTORIES)

    assert registry.names == frozenset()
    assert "Its path makes no name" in registry.broken[name]


def test_no_agent_directory_is_no_agents(tmp_path: Path) -> None:
    assert discover(tmp_path, DIRECTORIES).names == frozenset()


def test_a_file_is_executed_once_and_dataclasses_with_postponed_annotations_work(tmp_path: Path, write: Write) -> None:
    write(
        "agents/counted.py",
        "from __future__ import annotations\n"
        "import dataclasses, pathlib, sys\n"
        "from typing import ClassVar\n"
        "@dataclasses.dataclass\n"
        "class State:\n"
        "    shared: ClassVar[int] = 0\n"
        "    mine: int = 1\n"
        "with open(pathlib.Path(__file__).with_suffix('.runs'), 'a') as file:\n"
        "    file.write('x')\n" + AGENT % "",
    )

    registry = discover(tmp_path, DIRECTORIES)
    registry.get("counted")
    registry.get("counted")

    assert (tmp_path / "agents/counted.runs").read_text() == "x"
    module = next(module for name, module in sys.modules.items() if name.endswith("_counted"))
    assert [field.name for field in dataclasses.fields(module.State)] == ["mine"]


def test_two_files_of_one_stem_are_two_modules(tmp_path: Path, write: Write) -> None:
    write("agents/a/same.py", AGENT % "a")
    write("agents/b/same.py", AGENT % "b")

    discover(tmp_path, DIRECTORIES)

    assert len([name for name in sys.modules if name.endswith("_same")]) == 2


async def test_the_projects_own_modules_can_be_imported_while_loading_and_later(tmp_path: Path, write: Write) -> None:
    write("pyflue_test_shared.py", "TEXT = 'from the root'\n")
    write("src/pyflue_test_package/__init__.py", "TEXT = 'from src'\n")
    write("agents/_local.py", "")
    write(
        "agents/hello.py",
        "from pyflue_test_shared import TEXT\n"
        "from pyflue.agents import create_agent\n"
        "def initialize():\n"
        "    import pyflue_test_package\n"
        "    return {'instructions': TEXT + ', ' + pyflue_test_package.TEXT}\n"
        "default = create_agent(initialize)\n",
    )

    registry = discover(tmp_path, DIRECTORIES)

    assert registry.broken == {}
    assert await instructions_of(registry, "hello") == "from the root, from src"


def test_links_between_folders_do_not_go_round_for_ever(tmp_path: Path, write: Write) -> None:
    write("agents/hello.py", AGENT % "")
    (tmp_path / "agents" / "loop").symlink_to(tmp_path / "agents", target_is_directory=True)

    assert discover(tmp_path, DIRECTORIES).names == {"hello"}


def test_an_unknown_name_lists_those_there_are() -> None:
    registry = Registry()
    registry.add("b", create_agent(lambda: {}))
    registry.add("a", create_agent(lambda: {}))

    with pytest.raises(UnknownAgentError, match="Agents found: a, b"):
        registry.get("c")


def test_an_agent_is_known_by_itself() -> None:
    def made(text: str):
        return create_agent(lambda: {"instructions": text})

    first, second, stranger = made("1"), made("2"), made("3")
    registry = Registry()
    registry.add("first", first)
    registry.add("second", second)

    assert registry.name_of(first) == "first"
    assert registry.name_of(second) == "second"
    assert registry.name_of(stranger) is None


def test_an_agent_imported_a_second_time_is_recognised(tmp_path: Path, write: Write) -> None:
    write(
        "pyflue_test_agents/support.py",
        "from pyflue.agents import create_agent\n"
        "def initialize():\n    return {}\n"
        "default = create_agent(initialize)\n",
    )
    registry = discover(tmp_path, ("pyflue_test_agents",))

    imported = importlib.import_module("pyflue_test_agents.support").default

    assert imported is not registry.get("support")
    assert registry.name_of(imported) == "support"


def test_only_created_agents_with_a_usable_name_can_be_added() -> None:
    registry = Registry()

    with pytest.raises(ConfigurationError, match="create_agent"):
        registry.add("a", lambda: {})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="cannot be named"):
        registry.add("../a", create_agent(lambda: {}))
