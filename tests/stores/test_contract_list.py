"""The page of promises names tests that exist, leaves none out, and answers for every numbered behaviour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "contract.md").read_text("utf-8")
CONTRACTS = "".join(file.read_text("utf-8") for file in (ROOT / "pyflue" / "testing" / "contracts").glob("*.py"))
OWN_TESTS = "".join(file.read_text("utf-8") for file in (ROOT / "tests" / "stores").glob("test_*.py"))

GROUPS = {"A": 5, "R": 3, "O": 3, "C": 1, "L": 5, "B": 6, "Q": 7, "S": 5, "D": 5, "T": 3, "H": 3, "E": 4, "J": 14}
EDGES = {"X": 2, "V": 3, "N": 21, "M": 10}
INVARIANTS = {"I": 12}
RULES = {"": 14}
COUNTS = [*RULES.items(), *INVARIANTS.items(), *GROUPS.items(), *EDGES.items()]
NUMBERS = [f"{letter}{n}" for letter, count in COUNTS for n in range(1, count + 1)]


def names_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"def (test_\w+)\(", text))


def row_of(number: str) -> str:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {number} |")]
    assert len(rows) == 1, f"{number} has {len(rows)} rows"
    return rows[0]


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_names_its_tests_or_the_reason_for_none(number: str) -> None:
    _, _, promise, shown_by, _ = (cell.strip() for cell in row_of(number).split("|"))

    if promise == "–":
        assert re.fullmatch(r"No counterpart: .{20,}", shown_by)
    else:
        assert re.match(r"`test_\w+`", shown_by)


def test_every_test_the_page_names_exists() -> None:
    assert frozenset(re.findall(r"`(test_\w+)`", PAGE)) - names_in(CONTRACTS + OWN_TESTS) == frozenset()


def test_every_contract_test_is_on_the_page() -> None:
    assert names_in(CONTRACTS) - frozenset(re.findall(r"`(test_\w+)`", PAGE)) == frozenset()
