"""Migrations are numbered, only added, and never changed once applied."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyflue.errors import SchemaError
from pyflue.stores.migrations import (
    AppliedMigration,
    Migration,
    check_migrations,
    load_migrations,
    missing_migrations,
)
from pyflue.stores.sqlite.schema import split_statements

KNOWN = (Migration(1, "0001_tables", "create …", "aa"), Migration(2, "0002_more", "alter …", "bb"))
FIRST = AppliedMigration(1, "0001_tables", "aa")
SECOND = AppliedMigration(2, "0002_more", "bb")

Package = Callable[[dict[str, str]], str]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Make a package with the given migration files; return its name."""

    def make(migrations: dict[str, str]) -> str:
        name = f"dialect_{tmp_path.name.replace('-', '_')}"
        folder = tmp_path / name / "migrations"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").touch()
        for file, text in migrations.items():
            (folder / file).write_text(text)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        return name

    return make


@pytest.mark.parametrize("dialect", ["pyflue.stores.sqlite", "pyflue.stores.postgres"])
def test_the_shipped_migrations_are_numbered_from_one(dialect: str) -> None:
    migrations = load_migrations(dialect)

    assert [migration.number for migration in migrations] == list(range(1, len(migrations) + 1))
    assert all(len(migration.checksum) == 64 for migration in migrations)


def test_an_empty_database_lacks_them_all_in_order() -> None:
    assert missing_migrations(KNOWN, []) == KNOWN


def test_what_was_applied_is_not_applied_again() -> None:
    assert missing_migrations(KNOWN, [FIRST]) == KNOWN[1:]
    assert missing_migrations(KNOWN, [FIRST, SECOND]) == ()


def test_a_database_of_this_release_passes() -> None:
    check_migrations(KNOWN, [FIRST, SECOND])


def test_a_database_behind_this_release_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(SchemaError, match="0002_more"):
        check_migrations(KNOWN, [FIRST])


def test_a_database_ahead_of_this_release_is_refused() -> None:
    with pytest.raises(SchemaError, match="newer release"):
        missing_migrations(KNOWN, [FIRST, SECOND, AppliedMigration(3, "0003_later", "cc")])


def test_a_migration_edited_after_it_was_applied_is_refused() -> None:
    with pytest.raises(SchemaError, match="0001_tables was changed"):
        missing_migrations(KNOWN, [AppliedMigration(1, "0001_tables", "other")])


def test_another_text_has_another_checksum(package: Package) -> None:
    one, two = load_migrations(package({"0001_a.sql": "select 1;", "0002_b.sql": "select 2;"}))

    assert (one.name, one.sql) == ("0001_a", "select 1;")
    assert one.checksum != two.checksum


@pytest.mark.parametrize("files", [{"0002_b.sql": ""}, {"0001_a.sql": "", "0003_c.sql": ""}, {"first.sql": ""}])
def test_a_gap_or_a_bad_name_is_an_error(files: dict[str, str], package: Package) -> None:
    with pytest.raises(ValueError, match=r"number|named"):
        load_migrations(package(files))


def test_a_script_is_split_at_statements_and_not_inside_a_trigger() -> None:
    trigger = "create trigger t after insert on a\nbegin\n    update b set c = ';';\n    delete from d;\nend;"

    statements = list(
        split_statements(f"create table a (b text);\n-- a; comment\n{trigger}\ncreate table e (f text);\n")
    )

    assert [text.strip().split("\n")[0] for text in statements] == [
        "create table a (b text);",
        "-- a; comment",
        "create table e (f text);",
    ]
    assert statements[1].endswith(trigger)
