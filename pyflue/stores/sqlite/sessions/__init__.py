"""A conversation store in a SQLite file of its own: ``"persist": SQLiteSessionStore("history.sqlite3")``."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

from pyflue.errors import StoreUnavailableError
from pyflue.stores.protocol import HeadMoved
from pyflue.stores.queries import load_queries
from pyflue.stores.sqlite.connection import connect, create_file, setup_lock, translated, use_wal
from pyflue.stores.sqlite.statements import SqlValue, Statements

T = TypeVar("T")

_QUERIES: Final = load_queries("pyflue.stores.sqlite.sessions")


class SQLiteSessionStore:
    """A ``SessionStore``. The file and its folders are made on first use, private to their owner.

    Several objects and processes of one host may use one file. One connection, used by one call at a time.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._turn = Lock()

    async def append(self, session: str, expected_head: int, entries: Sequence[bytes]) -> int:
        rows: list[dict[str, SqlValue]] = [
            {"session": session, "seq": seq, "entry": bytes(entry)}
            for seq, entry in enumerate(entries, expected_head + 1)
        ]

        def append(work: Statements) -> int:
            head = work.all("conversations_head", session=session)[0][0]
            if head != expected_head:
                raise HeadMoved(head)
            work.run_many("conversations_append", rows)
            return head + len(rows)

        return await asyncio.to_thread(self._perform, append)

    async def load(self, session: str, after: int = 0) -> list[tuple[int, bytes]]:
        def load(work: Statements) -> list[tuple[int, bytes]]:
            return [(row[0], row[1]) for row in work.all("conversations_load", session=session, after=after)]

        return await asyncio.to_thread(self._perform, load)

    async def delete(self, session: str) -> None:
        await asyncio.to_thread(self._perform, lambda work: work.run("conversations_delete", session=session))

    async def close(self) -> None:
        """Close the file; the next call opens it again."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _perform(self, function: Callable[[Statements], T]) -> T:
        """Run ``function`` in one transaction, which ``with connection`` commits or rolls back."""
        try:
            with self._turn, self._opened() as connection:
                connection.execute("begin immediate")
                return function(Statements(connection, 0, _QUERIES))
        except sqlite3.Error as error:
            raise translated(error) from error
        except OSError as error:
            raise StoreUnavailableError(str(error.strerror or "")) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            with setup_lock(self._path):
                create_file(self._path)
                connection = connect(self._path)
                use_wal(connection)
                connection.execute(_QUERIES["conversations_create"])
            self._connection = connection
        return self._connection
