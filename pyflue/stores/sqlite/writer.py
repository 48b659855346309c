"""The one writer of a process: a thread that commits many callers' jobs together.

Each job runs in a savepoint of its own inside one ``begin immediate`` transaction, so that a job that fails takes
nothing of the others with it, and all of them share one flush to the disk. Nobody waits for company: a commit takes
whatever is queued when it begins. A caller is answered only after the commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from pyflue.clock import Clock
from pyflue.errors import CommitUnknownError, StoreUnavailableError
from pyflue.stores.sqlite.connection import translated
from pyflue.stores.sqlite.rows import micros
from pyflue.stores.sqlite.statements import Statements

T = TypeVar("T")

MAX_JOBS_PER_COMMIT: Final = 256  # bounds how long the file is locked against other processes: some 20 ms of jobs


class _Job(Generic[T]):
    """A caller's function, and where its answer goes."""

    def __init__(self, function: Callable[[Statements], T], loop: AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.future: Future[T] = loop.create_future()
        self.result: T | None = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Hand the answer over; runs on the caller's loop."""
        if self.future.done():  # the caller was cancelled meanwhile
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # pyright: ignore[reportArgumentType]  # T may itself be None


class _Savepoint:
    """Undoes a job that raised, and keeps what it raised for its caller instead of letting it end the thread."""

    def __init__(self, connection: sqlite3.Connection, job: _Job[Any]) -> None:
        self._connection = connection
        self._job = job

    def __enter__(self) -> None:
        self._connection.execute("savepoint job")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._connection.execute("release job")
            return True
        self._job.error = translated(error) if isinstance(error, sqlite3.Error) else error
        if self._connection.in_transaction:  # a full disk makes SQLite roll everything back by itself
            self._connection.execute("rollback to job")
            self._connection.execute("release job")
        return True


class Writer:
    """Starts with ``start``; takes jobs from any event loop; ends with ``stop``, after what was queued."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._gate = Lock()  # nothing may be queued behind the end of the queue
        self._thread: Thread | None = None

    def start(self, connection: sqlite3.Connection) -> None:
        """Begin to work; the connection is the writer's from now on."""
        # a daemon, so that a process that forgot to close its store can still end: whatever is not committed is not there
        self._thread = Thread(target=self._work, args=(connection,), name="pyflue-sqlite-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued and end the thread; blocks until then."""
        with self._gate:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join()

    async def write(self, function: Callable[[Statements], T]) -> T:
        """Run ``function`` in a transaction and return what it returned, once that is on the disk.

        What it raises reaches the caller, and then it has changed nothing. A cancelled call may still be committed.

        Raises:
            StoreUnavailableError: the file is locked, gone or not open; nothing was begun.
            CommitUnknownError: the commit itself failed.
        """
        job = _Job(function, asyncio.get_running_loop())
        with self._gate:
            if self._thread is None:
                raise StoreUnavailableError("the store is not open")
            self._queue.put(job)
        return await job.future

    def _work(self, connection: sqlite3.Connection) -> None:
        try:
            while jobs := self._next_jobs():
                self._commit_together(connection, jobs)
                _answer(jobs)
        finally:
            connection.close()

    def _next_jobs(self) -> list[_Job[Any]]:
        """Wait for a job, then take what else is queued. Empty: the end of the queue was reached."""
        jobs: list[_Job[Any]] = []
        with suppress(Empty):
            while len(jobs) < MAX_JOBS_PER_COMMIT:
                job = self._queue.get(block=not jobs)
                if job is None:
                    if jobs:
                        self._queue.put(None)  # stop after these; the gate keeps anything else out
                    break
                if not job.future.cancelled():
                    jobs.append(job)
        return jobs

    def _commit_together(self, connection: sqlite3.Connection, jobs: list[_Job[Any]]) -> None:
        try:
            connection.execute("begin immediate")
        except sqlite3.Error as error:
            _fail(jobs, StoreUnavailableError(str(error)))
            return
        try:
            for job in jobs:
                with _Savepoint(connection, job):
                    job.result = job.function(Statements(connection, micros(self._clock.now())))
                if not connection.in_transaction:
                    _fail(jobs, StoreUnavailableError("the transaction was rolled back"))
                    return
            connection.execute("commit")
        except sqlite3.Error as error:
            _fail([job for job in jobs if job.error is None], CommitUnknownError(str(error)))
            with suppress(sqlite3.Error):  # nothing to roll back
                connection.execute("rollback")


def _fail(jobs: list[_Job[Any]], error: StoreUnavailableError) -> None:
    for job in jobs:
        job.error = type(error)(error.detail)  # one each: an exception collects the traceback of its own caller


def _answer(jobs: list[_Job[Any]]) -> None:
    by_loop: dict[AbstractEventLoop, list[_Job[Any]]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, theirs in by_loop.items():
        with suppress(RuntimeError):  # the caller's loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_answer_all, theirs)


def _answer_all(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        job.answer()
