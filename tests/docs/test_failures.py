"""Codes of failures, statuses, reasons and limits on the pages are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyflue_web.problems import STATUS, STORE_RETRY_AFTER

from pyflue import errors
from pyflue.channels import github, slack, standard

ROOT = Path(__file__).parents[2]
WHILE_BUILDING = {errors.AgentBuildError.code, errors.ConfigurationError.code, errors.UnknownEntryKindError.code}
"""Parked under the error's own code. Agents that are unknown or broken are never claimed."""


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def codes(text: str) -> set[str]:
    """Return the codes in the first column of a section's tables."""
    return set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))


def calls(folder: str, *names: str) -> Iterator[list[str]]:
    """Yield the texts among the arguments of every call of these names."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]


def from_the_engine(name: str) -> set[str]:
    found = [*calls("pyflue/mailbox", name), *calls("pyflue/session", name)]
    return {texts[0] for texts in found if texts and texts[0].isidentifier()}


def from_the_models(*kinds: str) -> set[str]:
    return {texts[1] for texts in calls("pyflue/models", "_Verdict", "ModelFailure") if texts and texts[0] in kinds}


def test_why_a_dispatch_fails_is_documented() -> None:
    section = page("reference/failures.md").partition("## Settled failed")[2].partition("\n## ")[0]

    assert codes(section) == from_the_engine("Failed") | from_the_models("fatal", "context_overflow")


def test_why_a_dispatch_waits_is_documented() -> None:
    section = page("reference/failures.md").partition("## Parked")[2]

    passing = from_the_models("rate_limited", "overloaded", "transient")
    assert codes(section) == from_the_engine("Parked") | passing | WHILE_BUILDING


def test_the_statuses_of_the_standard_channel_are_the_fronts() -> None:
    rows = re.findall(r"^\| (4\d\d|5\d\d) \| `(\w+)` \|", page("how-to/standard.md"), re.MULTILINE)

    answered = {(str(status), error.code) for error, status in STATUS if error is not errors.InvalidInputError}
    assert set(rows) == answered


def test_the_pauses_a_refused_sender_is_told_are_documented() -> None:
    text = page("production.md")

    assert f"`503`\n  with `Retry-After: {STORE_RETRY_AFTER}`" in text
    assert f"`429` with `Retry-After: {errors.QueueFullError('session', 1).retry_after_seconds}`" in text


@pytest.mark.parametrize("name", ["github", "slack", "standard"])
def test_why_a_delivery_is_acknowledged_without_work_is_documented(name: str) -> None:
    tree = ast.parse((ROOT / "pyflue" / "channels" / f"{name}.py").read_text("utf-8"))
    said = {
        texts[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"ignored", "_acknowledged", "Answer"}
        for texts in [[arg.value for arg in node.args if isinstance(arg, ast.Constant)]]
        if texts
    }

    assert said
    for where in (f"how-to/{name}.md", "reference/logs.md"):
        text = page(where)
        assert {reason for reason in said if reason not in text} == set()


@pytest.mark.parametrize(
    ("name", "limit"), [("github", github.LIMIT), ("slack", slack.LIMIT), ("standard", standard.LIMIT)]
)
def test_where_a_reply_is_split_is_documented(name: str, limit: int) -> None:
    assert f"{limit:,} characters" in page(f"how-to/{name}.md")
