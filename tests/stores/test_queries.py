"""Named statements: both dialects have the same promises, each explained, with named parameters only."""

from __future__ import annotations

import re

import pytest

from pyflue.stores.queries import Query, load_queries, parse_queries

SQLITE = "pyflue.stores.sqlite"
POSTGRES = "pyflue.stores.postgres"
DIALECTS = (SQLITE, POSTGRES, "pyflue.stores.sqlite.sessions")

STATEMENTS = [
    pytest.param(dialect, query, id=f"{dialect}:{query.name}")
    for dialect in DIALECTS
    for query in load_queries(dialect)
]


def test_both_dialects_keep_the_same_promises() -> None:
    assert load_queries(SQLITE).stems() == load_queries(POSTGRES).stems()


@pytest.mark.parametrize(("dialect", "query"), STATEMENTS)
def test_every_statement_says_what_it_promises(dialect: str, query: Query) -> None:
    assert len(query.doc) > 10, f"{dialect}: {query.name} has no doc line under its header"


@pytest.mark.parametrize(("dialect", "query"), STATEMENTS)
def test_every_parameter_is_named(dialect: str, query: Query) -> None:
    code = re.sub(r"'[^']*'", "''", re.sub(r"--.*", "", query.sql))

    anonymous = re.findall(r"%s|%b|%t|\$\d", code) if dialect == POSTGRES else re.findall(r"\?", code)

    assert anonymous == []


@pytest.mark.parametrize(("dialect", "query"), STATEMENTS)
def test_a_statement_is_one_statement(dialect: str, query: Query) -> None:
    code = re.sub(r"'[^']*'", "''", re.sub(r"--.*", "", query.sql))

    assert ";" not in code


def test_a_name_has_a_stem_and_perhaps_a_part() -> None:
    [whole, part] = parse_queries(
        "-- name: a_b\n-- Does.\nselect 1;\n\n-- name: a_b.more\n-- Too.\n-- Yes.\nselect 2\n", "f"
    )

    assert (whole.name, whole.stem, whole.doc, whole.sql) == ("a_b", "a_b", "Does.", "select 1")
    assert (part.name, part.stem, part.doc, part.sql) == ("a_b.more", "a_b", "Too. Yes.", "select 2")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("select 1;\n", "before the first"),
        ("-- name: Not A Name\nselect 1;\n", "cannot read"),
        ("-- name: a.b.c\nselect 1;\n", "cannot read"),
        ("-- name: nothing\n-- Says much, does nothing.\n", "is empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_queries(text, "some.sql")


def test_asking_for_a_statement_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        load_queries(SQLITE)["ledger_admire"]
