"""A few threads that read, each on a connection of its own: a write-ahead log never makes readers wait for a writer."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from pyflue.clock import Clock
from pyflue.errors import StoreUnavailableError
from pyflue.stores.sqlite.connection import connect, translated
from pyflue.stores.sqlite.rows import micros
from pyflue.stores.sqlite.statements import Statements

T = TypeVar("T")

_THREADS: Final = 4  # reads are short; more threads would only wait for each other's turn in the interpreter


class Readers:
    """Starts with ``start``, ends with ``stop``. Each statement of a read sees its own snapshot."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(_THREADS, "pyflue-sqlite-reader")

    def stop(self) -> None:
        """Finish what is under way and close the connections; blocks until then."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
        while self._connections:
            self._connections.pop().close()

    async def read(self, function: Callable[[Statements], T]) -> T:
        """Run ``function`` on a reading connection and return what it returned.

        Raises:
            StoreUnavailableError: the file is locked, gone or not open.
        """
        if self._pool is None:
            raise StoreUnavailableError("the store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._perform, function)

    def _perform(self, function: Callable[[Statements], T]) -> T:
        try:
            return function(Statements(self._connection(), micros(self._clock.now())))
        except sqlite3.Error as error:
            raise translated(error) from error

    def _connection(self) -> sqlite3.Connection:
        held: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if held is None:
            held = connect(self._path, read_only=True)
            self._local.connection = held
            self._connections.append(held)
        return held
