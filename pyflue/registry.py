"""Find the agents of a project: one file, one agent.

Every ``*.py`` under the agent directories, at any depth, is an agent named after its path (``support/triage.py`` is
``support.triage``), unless its name starts with ``_``. Folders named ``skills``, hidden ones and those starting with
``_`` are not entered: what lies there is not an agent, and must not run by being found.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

from msgspec import Struct

from pyflue.agents import AGENT_NAME, CreatedAgent, code_of, is_created_agent
from pyflue.errors import BrokenAgentError, ConfigurationError, UnknownAgentError, described

_NOT_ENTERED: Final = frozenset({"skills", "node_modules"})
_NO_AGENT: Final = (
    "It defines neither `default` nor `agent` made by create_agent(). "
    "If it is not an agent, start its name with an underscore or move it."
)


class Registry:
    """The agents this process knows, by name; filled once at start, by ``discover`` or ``add``.

    ``broken`` tells why a file that should hold an agent does not, by the name it would have.
    """

    def __init__(self, broken: Mapping[str, str] | None = None) -> None:
        self.broken: dict[str, str] = dict(broken or {})
        self._agents: dict[str, CreatedAgent] = {}

    @property
    def names(self) -> frozenset[str]:
        """Return the names of all agents that can be worked."""
        return frozenset(self._agents)

    def add(self, name: str, agent: CreatedAgent) -> None:
        """Register an agent; the name's earlier holder is replaced.

        Raises:
            ConfigurationError: the name cannot be part of an address, or the value is not a created agent.
        """
        if not AGENT_NAME.fullmatch(name):
            raise ConfigurationError(
                f"An agent cannot be named {name!r}.", fix="Use letters, digits, dashes, underscores."
            )
        if not is_created_agent(agent):
            raise ConfigurationError(f"Agent {name!r} is a {type(agent).__name__}.", fix="Make it with create_agent().")
        self.broken.pop(name, None)
        self._agents[name] = agent

    def find(self, name: str) -> CreatedAgent | None:
        """Return the agent of that name, or None."""
        return self._agents.get(name)

    def get(self, name: str) -> CreatedAgent:
        """Return the agent of that name.

        Raises:
            BrokenAgentError: its file cannot be loaded.
            UnknownAgentError: there is none; the message lists those there are.
        """
        if agent := self._agents.get(name):
            return agent
        if reason := self.broken.get(name):
            raise BrokenAgentError(name, reason)
        raise UnknownAgentError(name, tuple(sorted(self._agents)))

    def name_of(self, agent: CreatedAgent) -> str | None:
        """Return the name an agent is registered under, or None.

        An agent is recognised as itself, and also when its file was imported a second time under another module name,
        as ``from agents.support import agent`` does: then by the module-level function that initializes it.
        """
        for name, known in self._agents.items():
            if known is agent:
                return name
        origin = _origin(agent)
        same = [name for name, known in self._agents.items() if origin is not None and _origin(known) == origin]
        return same[0] if len(same) == 1 else None


class _Found(Struct, frozen=True):
    name: str
    path: Path


def discover(root: Path, directories: tuple[str, ...]) -> Registry:
    """Load every agent file under ``root``'s ``directories``; where two have one name, the later directory's counts.

    Each file is executed once, as a module of its own in ``sys.modules``. One that fails is listed in ``broken`` and
    disturbs no other. ``root`` and ``root/src`` are put at the front of ``sys.path`` and stay there, because tools may
    import the project's own modules when they are called.
    """
    root = root.resolve()
    _make_importable(root)
    files = {found.name: found.path for directory in directories for found in _files(root / directory)}
    registry = Registry()
    for name, path in sorted(files.items()):
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        try:
            registry.add(name, _load(path, name))
        except KeyboardInterrupt:  # somebody stops the process
            raise
        except BaseException as error:  # noqa: BLE001 - an agent's file may raise anything
            registry.broken[name] = f"{shown}{_line_of(error, path)}: {_said(error)}"
    return registry


def _make_importable(root: Path) -> None:
    for folder in (root / "src", root):
        if folder.is_dir() and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _files(directory: Path) -> Iterator[_Found]:
    """Yield agent files in a stable order. Links to folders are not followed, so there are no cycles."""
    for folder, inner, names in os.walk(directory):
        inner[:] = sorted(each for each in inner if not each.startswith((".", "_")) and each not in _NOT_ENTERED)
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(("_", ".")):
                path = Path(folder, name)
                yield _Found(_name_of(path.relative_to(directory)), path)


def _name_of(relative: Path) -> str:
    """Name an agent after its path; a path that makes no name stands for itself, and is refused when registered."""
    parts = relative.with_suffix("").parts
    if any("." in part for part in parts):  # a dot would look like a folder
        return relative.as_posix()
    name = ".".join(parts)
    return name if AGENT_NAME.fullmatch(name) else relative.as_posix()


def _load(path: Path, name: str) -> CreatedAgent:
    if name.endswith(".py"):
        raise ConfigurationError("Its path makes no name.", fix="Use letters, digits, dashes and underscores only.")
    module = _execute(path)
    for export in ("default", "agent"):
        value: object = vars(module).get(export)
        if is_created_agent(value):
            return value
        if value is not None:
            raise ConfigurationError(f"`{export}` is a {type(value).__name__}.", fix="Make it with create_agent().")
    raise ConfigurationError(_NO_AGENT)


def _execute(path: Path) -> ModuleType:
    """Execute a file as a module registered in ``sys.modules``, where dataclasses and pickles look for it."""
    digest = hashlib.blake2b(os.fsencode(path), digest_size=6).hexdigest()
    spec = importlib.util.spec_from_file_location(f"_pyflue_agent_{digest}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path.name} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module


def _line_of(error: BaseException, path: Path) -> str:
    """Return where in the file it went wrong, as ``", line N"``, if that can be told."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}" if error.lineno and error.filename == str(path) else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _said(error: BaseException) -> str:
    if isinstance(error, ConfigurationError):
        return str(error)
    return f"{type(error).__name__}: {error.msg}" if isinstance(error, SyntaxError) else described(error)


def _origin(agent: CreatedAgent) -> tuple[str, str, int] | None:
    """Tell where an agent's initializer is written; None unless at the top level of a file.

    A function made by another one is left out: the same place in the code can give several agents.
    """
    code = code_of(agent.initialize)
    if code is None or "<locals>" in code.co_qualname:
        return None
    return os.path.realpath(code.co_filename), code.co_qualname, code.co_firstlineno
