"""Opening the file: how every connection of this store is set up, and what SQLite's errors mean to callers."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pyflue.errors import StoreError, StoreUnavailableError

BUSY_SECONDS: Final = 5.0  # how long a write waits for another process's commit before it gives up
_CHECKPOINT_PAGES: Final = 8_000  # 32 MB; at the default 1,000 a busy writer spends half its time copying the log back
_CACHED_STATEMENTS: Final = 256  # above the number of named statements, so that none is ever parsed twice


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open an existing file; it may be used from another thread than this one, but by one at a time.

    Transactions are ours to begin: the module's implicit ones are off.

    Raises:
        StoreUnavailableError: the file is missing or cannot be read now.
        StoreError: it is damaged, or not a database.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
        # FULL: a commit is on the disk before it is answered; group commit makes that cost a few percent
        connection.execute("pragma synchronous = full")
        connection.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"pragma query_only = {int(read_only)}")
    except sqlite3.Error as error:
        raise unreadable(path, error) from error
    return connection


def create_file(path: Path) -> None:
    """Make the file, empty and private to its owner, with its folders; keep one that is there.

    An existing file is never opened here: closing any descriptor of it would drop the locks that SQLite holds on it
    for this whole process (POSIX record locks).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return


@contextmanager
def setup_lock(path: Path) -> Generator[None]:
    """Hold the lock under which a file is created, switched to WAL and migrated; waits for other processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, which it then keeps. Call under ``setup_lock``: switching never waits."""
    connection.execute("pragma journal_mode = wal")


def translated(error: sqlite3.Error) -> StoreError:
    """Turn SQLite's error into ours. Only a broken constraint or a wrong call is not an outage."""
    if isinstance(error, sqlite3.IntegrityError):
        return StoreError("The write does not fit what is stored.", cause="Nothing was changed.", detail=str(error))
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.DataError | sqlite3.InterfaceError):
        return StoreError("The store was asked something it cannot do.", detail=str(error))
    return StoreUnavailableError(detail=str(error))


def unreadable(path: Path, error: sqlite3.Error) -> StoreError:
    """As ``translated``, for opening a file: one that is no sound database will not be one later either."""
    if (error.sqlite_errorcode & 0xFF) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return translated(error)
    return StoreError(
        "The database file cannot be read.",
        cause=f"{path} is damaged, or no SQLite database.",
        fix="Put a backup in its place, or set storage.url to another file.",
        detail=str(error),
    )
