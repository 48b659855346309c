"""The example projects work as they are: their tests pass where a user would run them, and their settings load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyflue.config import load_project
from pyflue.registry import discover

EXAMPLES = Path(__file__).parents[1] / "examples"
PROJECTS = sorted(path.parent for path in EXAMPLES.glob("*/pyflue.toml"))
TESTED = sorted(path.parent for path in EXAMPLES.glob("*/tests"))


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_its_settings_and_agents_load(project: Path) -> None:
    settings = load_project(project / "pyflue.toml", {}).settings
    registry = discover(project, settings.agents.directories)

    assert registry.broken == {}
    assert {channel.agent for channel in settings.channels.values()} <= registry.names


@pytest.mark.parametrize("project", TESTED, ids=lambda path: path.name)
def test_its_tests_pass(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stdout + done.stderr
