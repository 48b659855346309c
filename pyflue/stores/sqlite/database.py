"""The file as the ports see it: write a job, read a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyflue.clock import Clock
from pyflue.stores.sqlite.connection import connect
from pyflue.stores.sqlite.readers import Readers
from pyflue.stores.sqlite.schema import check
from pyflue.stores.sqlite.statements import Statements
from pyflue.stores.sqlite.writer import Writer

T = TypeVar("T")


class Database:
    """The writer and the readers of one file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._writer = Writer(clock)
        self._readers = Readers(path, clock)

    def start(self) -> None:
        """Check the schema and start the threads; blocks. Raises as ``Store.open``."""
        check(self._path)
        self._readers.start()
        self._writer.start(connect(self._path))

    def stop(self) -> None:
        """Finish what is under way and end the threads; blocks."""
        self._readers.stop()
        self._writer.stop()  # last, because the last connection to close copies the log back into the file

    async def write(self, function: Callable[[Statements], T]) -> T:
        """Run ``function`` in one transaction; see ``Writer.write``."""
        return await self._writer.write(function)

    async def read(self, function: Callable[[Statements], T]) -> T:
        """Run ``function`` on a reading connection; see ``Readers.read``."""
        return await self._readers.read(function)
