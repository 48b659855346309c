"""What a check found."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True):
    """One thing looked at. ``warn``: it works, but somebody should know; ``fail``: something does not work.

    ``fix`` says what to do; empty when nothing is to be done. Neither text holds a secret or a database URL.
    """

    level: Level
    check: str
    message: str
    fix: str = ""


def ok(check: str, message: str) -> Finding:
    return Finding("ok", check, message)


def warn(check: str, message: str, fix: str) -> Finding:
    return Finding("warn", check, message, fix)


def fail(check: str, message: str, fix: str) -> Finding:
    return Finding("fail", check, message, fix)


def worst(findings: list[Finding]) -> Level:
    """Return the worst level there is among them."""
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def counted(number: int, one: str, many: str = "") -> str:
    """Say a number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"
