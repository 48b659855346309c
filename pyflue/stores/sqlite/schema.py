"""Making and checking the schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyflue.errors import SchemaError, StoreError
from pyflue.stores.migrations import (
    AppliedMigration,
    Migration,
    check_migrations,
    load_migrations,
    missing_migrations,
)
from pyflue.stores.sqlite.connection import connect, create_file, setup_lock, unreadable, use_wal
from pyflue.stores.sqlite.statements import Statements

MIGRATIONS: Final = load_migrations("pyflue.stores.sqlite")


def migrate(path: Path, now: int) -> list[str]:
    """Create the file if need be and apply what is missing; return the names applied. Blocks.

    Safe from many processes at once: they wait for each other, and all but the first find nothing to do.
    """
    try:
        with setup_lock(path):
            create_file(path)
            connection = connect(path)
            try:
                return _apply_missing(connection, now)
            finally:
                connection.close()
    except sqlite3.Error as error:
        raise unreadable(path, error) from error
    except OSError as error:
        raise _unusable(error) from error


def check(path: Path) -> None:
    """Return when the file's schema is this release's. Blocks.

    Raises:
        SchemaError: it is missing, or not the one this release knows.
        StoreUnavailableError: the file cannot be read now.
        StoreError: its folder cannot be entered, or it is not a sound database.
    """
    try:
        path.stat()
    except FileNotFoundError:
        raise SchemaError("There is no database yet.") from None
    except OSError as error:
        raise _unusable(error) from error
    connection = connect(path)
    try:
        check_migrations(MIGRATIONS, _applied(Statements(connection, 0)))
    except sqlite3.Error as error:
        raise unreadable(path, error) from error
    finally:
        connection.close()


def _unusable(error: OSError) -> StoreError:
    return StoreError(
        "The database file cannot be made or opened.",
        cause=f"{error.filename or 'Its folder'}: {error.strerror or type(error).__name__}.",
        fix="Set storage.url to a file in a folder that this user may write to.",
    )


def _apply_missing(connection: sqlite3.Connection, now: int) -> list[str]:
    use_wal(connection)
    statements = Statements(connection, now)
    statements.run("store_ready.create")
    missing = missing_migrations(MIGRATIONS, _applied(statements))
    for migration in missing:
        connection.execute("begin immediate")
        for sql in split_statements(migration.sql):
            connection.execute(sql)
        _record(statements, migration)
        connection.execute("commit")
    return [migration.name for migration in missing]


def _record(statements: Statements, migration: Migration) -> None:
    statements.run(
        "store_ready.record",
        number=migration.number,
        name=migration.name,
        checksum=migration.checksum,
        now=statements.now,
    )


def _applied(statements: Statements) -> list[AppliedMigration]:
    if statements.one("store_ready.known") is None:
        return []
    return [AppliedMigration(*row) for row in statements.all("store_ready.applied")]


def split_statements(text: str) -> Iterator[str]:
    """Yield a script's statements. ``executescript`` would commit first, and so apply half a file when one fails."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(line)
        statement = "\n".join(lines)
        if line.rstrip().endswith(";") and sqlite3.complete_statement(statement):
            yield statement
            lines = []
