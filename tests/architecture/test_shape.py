"""The shape of the code: sizes, names, and what importing costs. Every exception is listed here with its reason."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"pyflue": ROOT, "pyflue_web": ROOT / "web", "pyflue_workers": ROOT / "workers"}
MODULES = sorted(path for name, folder in PACKAGES.items() for path in (folder / name).rglob("*.py"))

MODULE_LINES = 400
LOOP_LINES = 300
BODY_LINES = 40
BANNED_NAMES = {"utils", "util", "helpers", "common", "misc", "types", "manager", "base", "core"}

LONG_MODULES = {
    "pyflue/stores/protocol.py": "all ports of one store: what is atomic together is read together",
}
LONG_BODIES: dict[str, str] = {}

BROAD_EXCEPTS = {
    "pyflue/errors.py": "the `__str__` of an exception is user code too",
    "pyflue/session/toolcalls.py": "tool call: a tool is user code, and whatever it raises is told to the model",
    "pyflue/tools/threads.py": "tool call: carried from the tool's thread to whoever awaits it",
    "pyflue/mailbox/drain.py": "actor: a bug of ours must not strand the mailbox",
    "pyflue/mailbox/deliver.py": "actor: a channel's bug must not lose the reply it was sending",
    "pyflue/mailbox/worker.py": "actor: nothing may end the heartbeat or the loop that finds lost work",
    "workers/pyflue_workers/actors.py": "actor: a wake-up is acknowledged whatever happens; rescue finds the session",
    "pyflue/mailbox/admit.py": "request: one caller's poison must not fail the batch it travels in",
    "web/pyflue_web/webhooks.py": "request: whatever it is, the sender gets an answer",
    "pyflue/handles.py": "observer: the same, for one given to a prompt",
    "pyflue/registry.py": "an agent's file is user code: one that cannot be loaded must not hide the others",
}

SQL = re.compile(
    r"^\s*(select\s.+\sfrom\s|insert\s+into\s|update\s+\w+\s+set\s|delete\s+from\s|create\s+(table|index|unique)\s"
    r"|alter\s+table\s|drop\s+(table|index)\s|with\s+\w+\s+as\s*\()",
    re.IGNORECASE | re.DOTALL,
)


def name_of(path: Path) -> str:
    """Return a module's path as ARCHITECTURE writes it: relative to the project."""
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if not body:
        return 0
    last = body[-1].end_lineno
    assert last is not None
    return last - body[0].lineno + 1


def docstrings(tree: ast.AST) -> set[int]:
    """Return the identities of the constants that are docstrings, or strings standing alone as documentation."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_at_most_four_hundred_lines(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())

    assert (lines > MODULE_LINES) == (name_of(path) in LONG_MODULES), f"{lines} lines; LONG_MODULES lists the long ones"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_body_is_at_most_forty_lines(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))

    sizes = {f"{name_of(path)}:{function.name}": body_lines(function) for function in functions(tree)}

    assert {name: size for name, size in sizes.items() if size > BODY_LINES and name not in LONG_BODIES} == {}


def test_the_listed_exceptions_still_exist() -> None:
    files = {name_of(path) for path in MODULES}

    assert set(LONG_MODULES) | set(BROAD_EXCEPTS) | {name.partition(":")[0] for name in LONG_BODIES} <= files


def test_the_turn_loop_stays_small() -> None:
    assert len((ROOT / "pyflue/session/loop.py").read_text("utf-8").splitlines()) < LOOP_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_named_after_a_thing_or_a_step(path: Path) -> None:
    words = {part for folder in path.relative_to(ROOT).with_suffix("").parts for part in folder.split("_")}

    assert words.isdisjoint(BANNED_NAMES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_sql_lives_in_sql_files(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    documentation = docstrings(tree)

    found = [
        f"line {node.lineno}: {node.value.strip()[:60]}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        if SQL.match(node.value)
    ]

    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_broad_except_raises_again_or_stands_at_a_listed_edge(path: Path) -> None:
    def is_broad(handler: ast.ExceptHandler) -> bool:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(each is None or getattr(each, "id", "") in {"Exception", "BaseException"} for each in caught)

    tree = ast.parse(path.read_text("utf-8"))
    swallowing = [
        handler.lineno
        for handler in ast.walk(tree)
        if isinstance(handler, ast.ExceptHandler) and is_broad(handler) and not isinstance(handler.body[-1], ast.Raise)
    ]

    assert not swallowing or name_of(path) in BROAD_EXCEPTS, f"lines {swallowing}"


def test_the_public_module_only_exports() -> None:
    tree = ast.parse((ROOT / "pyflue/__init__.py").read_text("utf-8"))

    def only_exports(node: ast.stmt) -> bool:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Assign() | ast.AnnAssign() | ast.Expr(value=ast.Constant()):
                return True
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return all(map(only_exports, node.body))
            case ast.FunctionDef(name="__getattr__" | "__dir__"):
                return True
            case _:
                return False

    assert [ast.unparse(node) for node in tree.body if not only_exports(node)] == []


def modules_loaded_by(statement: str) -> set[str]:
    """Run ``statement`` in a fresh interpreter and return the names of all modules it has then."""
    script = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def all_of(*packages: str) -> str:
    """Return a statement that imports these packages and every module in them."""
    names = [
        ".".join(path.relative_to(PACKAGES[package.partition(".")[0]]).with_suffix("").parts).removesuffix(".__init__")
        for package in packages
        for path in MODULES
        if path.is_relative_to(PACKAGES[package.partition(".")[0]] / package.replace(".", "/"))
        and path.name != "__main__.py"
    ]
    return f"import {', '.join(names)}" if names else "pass"


@pytest.mark.parametrize(
    "statement", ["import pyflue", all_of("pyflue_web"), all_of("pyflue.cli")], ids=lambda text: text[:24]
)
def test_the_front_and_the_commands_never_import_the_models_sdk(statement: str) -> None:
    """It costs 1.8 s and 85 MB, and neither of them ever asks a model."""
    assert "anthropic" not in modules_loaded_by(statement)


def test_importing_the_library_brings_no_server_broker_or_driver() -> None:
    assert modules_loaded_by("import pyflue").isdisjoint({"litestar", "dramatiq", "redis", "psycopg", "uvicorn"})


def test_importing_any_module_starts_no_thread_and_says_nothing() -> None:
    everything = all_of("pyflue", "pyflue_web", "pyflue_workers")
    check = "import sys, threading\nassert threading.active_count() == 1, threading.enumerate()"

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{everything}\n{check}"], capture_output=True, text=True, cwd=ROOT
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
