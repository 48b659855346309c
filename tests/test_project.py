"""The project's files agree with each other."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent


def parsed(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text("utf-8"))


def requirements(lines: list[str]) -> set[tuple[str, frozenset[str], str, str]]:
    """Return requirements in a form that does not depend on how they are written."""
    each = [Requirement(line) for line in lines]
    return {(canonicalize_name(r.name), frozenset(r.extras), str(r.specifier), str(r.marker or "")) for r in each}


def locked(entries: list[dict[str, Any]]) -> set[tuple[str, frozenset[str], str, str]]:
    return {
        (
            entry["name"],
            frozenset(entry.get("extras", [])),
            str(Requirement(f"x{entry.get('specifier', '')}").specifier),
            str(Requirement(f"x; {entry['marker']}").marker) if "marker" in entry else "",
        )
        for entry in entries
    }


def test_the_lock_file_was_made_from_these_requirements() -> None:
    project = parsed("pyproject.toml")
    ours = next(package for package in parsed("uv.lock")["package"] if package["name"] == project["project"]["name"])

    assert locked(ours["metadata"]["requires-dist"]) == requirements(project["project"]["dependencies"])
    assert locked(ours["metadata"]["requires-dev"]["dev"]) == requirements(project["dependency-groups"]["dev"])
    assert ours["version"] == project["project"]["version"]


def test_the_lock_file_names_no_private_index() -> None:
    registries = {package["source"].get("registry", "") for package in parsed("uv.lock")["package"]}

    assert registries <= {"", "https://pypi.org/simple"}


def test_the_image_and_the_makefile_install_with_the_same_uv() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    version = next(line.split()[-1] for line in makefile.splitlines() if line.startswith("UV_VERSION"))

    assert f"astral-sh/uv:{version} " in (ROOT / "Dockerfile").read_text("utf-8")


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"## {parsed('pyproject.toml')['project']['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_continuous_integration_runs_the_checks_then_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    commands = [line for line in script.read_text("utf-8").splitlines() if line and not line.startswith("#")]

    assert commands[0] == "set -euo pipefail"
    assert commands[-2:] == ["make check", "make test"]
    assert script.stat().st_mode & 0o111
