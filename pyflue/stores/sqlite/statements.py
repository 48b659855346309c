"""What a job is given: one connection's named statements, and the instant the job began."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from pyflue.stores.queries import Queries, load_queries

SqlValue = str | int | bytes | None
Row = tuple[Any, ...]  # SQLite's border: rows.py turns these into Structs

QUERIES: Final = load_queries("pyflue.stores.sqlite")


class Statements:
    """Runs named statements on one connection. ``now`` is in microseconds since 1970 UTC."""

    def __init__(self, connection: sqlite3.Connection, now: int, queries: Queries = QUERIES) -> None:
        self._connection = connection
        self._queries = queries
        self.now = now

    def one(self, name: str, /, **values: SqlValue) -> Row | None:
        """Run a statement to its end and return its first row, or None."""
        rows = self.all(name, **values)
        return rows[0] if rows else None

    def all(self, name: str, /, **values: SqlValue) -> list[Row]:
        return self._connection.execute(self._queries[name], values).fetchall()

    def run(self, name: str, /, **values: SqlValue) -> None:
        self._connection.execute(self._queries[name], values)

    def run_many(self, name: str, values: Sequence[dict[str, SqlValue]]) -> None:
        """Run a statement that returns no rows once for each of ``values``."""
        self._connection.executemany(self._queries[name], values)
