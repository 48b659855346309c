"""Connections, and what their failures mean.

Every statement is sent alone, in autocommit, prepared on its second use, with results in binary. A failure is
translated here and nowhere else:

- no connection, or one that broke before anything was sent: ``StoreUnavailableError``;
- a connection lost during a read: the read is done again on another one, then ``StoreUnavailableError``;
- a connection lost during a write: ``CommitUnknownError``;
- a deadlock, a serialization failure or our own "look again": undone by the server, so done again;
- a statement the server cancelled (a timeout set by its operator): undone, ``StoreUnavailableError``;
- a value that cannot be stored (a NUL character in an id): ``InvalidInputError``;
- anything else the server refuses, such as a missing right: ``StoreError``.

The texts of these errors carry a class name and an SQLSTATE, never a DSN, a row or a parameter.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from pyflue.errors import CommitUnknownError, ConfigurationError, InvalidInputError, StoreError, StoreUnavailableError
from pyflue.stores.postgres.arrays import register
from pyflue.stores.queries import Queries

Row = tuple[Any, ...]  # a row as psycopg hands it over; rows.py gives it its types
Params = Mapping[str, object]

POOL_TIMEOUT: Final = 2.0  # seconds to wait for a connection: platforms want an answer within 3
STATEMENT_TIMEOUT: Final = 15.0  # seconds; a server that was stopped, or a network that swallows answers
CHECKED_EVERY: Final = 1.0  # seconds between psycopg's looks at the clock while it waits
TRIES: Final = 8  # of a statement the server undid; each try sees what the last one lost against
_PREPARED: Final = 200  # statements kept per connection; there are about fifty
_UNDONE: Final = (errors.SerializationFailure, errors.DeadlockDetected, errors.DivisionByZero)
_CANCELLED: Final = (errors.QueryCanceled, errors.LockNotAvailable, errors.ReadOnlySqlTransaction)
_SOCKET: Final[dict[str, str]] = {
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",  # milliseconds
}


def connection_string(dsn: str) -> str:
    """Add our socket timeouts and name to a DSN; what the DSN sets itself wins.

    Raises:
        ConfigurationError: it is not a PostgreSQL connection string. The message does not repeat it.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "The PostgreSQL connection string cannot be read.",
            fix="Write it as postgresql://user:password@host:5432/database.",
        ) from None
    return make_conninfo("", **{**_SOCKET, "application_name": "pyflue", **given})


def unavailable(error: BaseException) -> StoreUnavailableError:
    """Say that nothing was begun; ``detail`` names the kind of failure only."""
    return StoreUnavailableError(kind_of_failure(error))


def kind_of_failure(error: BaseException) -> str:
    """Name a failure without its text, which may repeat a DSN or a row."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__


class _BoundedConnection(AsyncConnection[Row]):
    """Waits for the server so long and no longer, then gives up at once: no cancelling a server that is not there."""

    async def wait(self, gen: PQGen[Any], interval: float = CHECKED_EVERY, timeout: float | None = None) -> Any:  # noqa: ANN401 - psycopg's
        return await super().wait(gen, interval, STATEMENT_TIMEOUT if timeout is None else timeout)


class Pool:
    """Runs named statements on a few connections. Belongs to one event loop."""

    def __init__(self, dsn: str, size: int, queries: Queries) -> None:
        self._conninfo = connection_string(dsn)
        self._size = size
        self._queries = queries
        self._pool: AsyncConnectionPool[AsyncConnection[Row]] | None = None
        self._turns = asyncio.Semaphore(size)
        self._kept: list[AsyncConnection[Row]] = []  # taken from the pool and free; the last used is taken first

    @property
    def conninfo(self) -> str:
        """The connection string, for connections outside the pool. Secret."""
        return self._conninfo

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailableError: no connection within a few seconds.
        """
        if self._pool is not None:
            return
        pool: AsyncConnectionPool[AsyncConnection[Row]] = AsyncConnectionPool(
            self._conninfo,
            connection_class=_BoundedConnection,
            kwargs={"autocommit": True, "prepare_threshold": 1},
            min_size=1,
            max_size=self._size,
            open=False,
            configure=self._configure,
            name="pyflue",
            timeout=POOL_TIMEOUT,
            reconnect_timeout=4.0,  # seconds; then the next caller starts over, so that pauses stay short
        )
        try:
            await pool.open(wait=True, timeout=POOL_TIMEOUT * 2)
        except PoolTimeout:
            await pool.close()
            raise StoreUnavailableError(await self._refusal()) from None
        except asyncio.CancelledError:
            await pool.close()  # its tasks outlive a cancelled opening, and keep the event loop from ending
            raise
        self._pool = pool

    async def _refusal(self) -> str:
        """Ask once more, for the server's own words: a pool that waited in vain does not tell them."""
        try:
            async with asyncio.timeout(POOL_TIMEOUT):
                connection = await AsyncConnection.connect(self._conninfo)
        except (psycopg.Error, TimeoutError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            password = str(conninfo_to_dict(self._conninfo).get("password") or "")
            return said.replace(password, "…") if password else said
        await connection.close()
        return "It answers only now."

    async def close(self) -> None:
        """Disconnect; idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            kept, self._kept = self._kept, []
            for connection in kept:
                await pool.putconn(connection)
            await pool.close()

    async def _configure(self, connection: AsyncConnection[Row]) -> None:
        register(connection)
        connection.prepared_max = _PREPARED
        await connection.execute(cast(LiteralString, self._queries["store_ready.configure"]))

    async def read(self, name: str, params: Params) -> list[Row]:
        """Run a statement that changes nothing."""
        try:
            return await self._run(name, params)
        except CommitUnknownError:
            pass
        try:
            return await self._run(name, params)
        except CommitUnknownError as error:
            raise StoreUnavailableError(error.detail) from None

    async def write(self, name: str, params: Params) -> list[Row]:
        """Run a statement that changes something, again if the server undid it for another transaction's sake."""
        for _ in range(TRIES - 1):
            try:
                return await self._run(name, params)
            except _UNDONE:
                continue
        try:
            return await self._run(name, params)
        except _UNDONE as error:
            raise unavailable(error) from None

    async def _run(self, name: str, params: Params) -> list[Row]:
        pool = self._pool
        if pool is None:
            raise StoreUnavailableError("the store is not open")
        await self._take_turn()
        try:
            return await self._run_on(pool, name, params)
        finally:
            self._turns.release()

    async def _take_turn(self) -> None:
        """Wait in line for one of as many turns as there are connections: much cheaper than the pool's own line."""
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(POOL_TIMEOUT):
                await self._turns.acquire()
        except TimeoutError as error:
            raise unavailable(error) from None

    async def _run_on(self, pool: AsyncConnectionPool[AsyncConnection[Row]], name: str, params: Params) -> list[Row]:
        connection = await self._take(pool)
        sound = False
        try:
            cursor = connection.cursor(binary=True)
            await cursor.execute(cast(LiteralString, self._queries[name]), params)
            rows = await cursor.fetchall()
            sound = True
            return rows
        except _UNDONE:
            raise
        except _CANCELLED as error:
            raise unavailable(error) from None
        except psycopg.DataError as error:
            raise _unstorable(error) from None
        except psycopg.OperationalError as error:
            await connection.close()  # it is broken, or its answer may still come
            raise CommitUnknownError(kind_of_failure(error)) from None
        except psycopg.Error as error:
            raise refused(error) from None
        finally:
            if sound and self._pool is pool:
                self._kept.append(connection)
            else:
                await pool.putconn(connection)

    async def _take(self, pool: AsyncConnectionPool[AsyncConnection[Row]]) -> AsyncConnection[Row]:
        """Take a connection that did not break while it lay idle.

        After a restart of the server every idle connection is broken; using one would make a write's outcome unknown
        although nothing was sent. A broken one shows as a socket with something to read (the server's good-bye).
        One whose last statement went well is kept here: giving it to the pool and asking for it again costs as much
        as a small statement.
        """
        try:
            while True:
                connection = self._kept.pop() if self._kept else await pool.getconn()
                if not connection.closed and not _something_to_read(connection.fileno()):
                    return connection
                await connection.close()
                await pool.putconn(connection)
        except (PoolTimeout, PoolClosed) as error:
            raise unavailable(error) from None


def _something_to_read(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _unstorable(error: psycopg.DataError) -> InvalidInputError:
    return InvalidInputError(
        "This cannot be stored.",
        cause="An id, a key or an address holds a character that PostgreSQL does not take, such as NUL.",
        fix="Send it without that character.",
        detail=kind_of_failure(error),
    )


def refused(error: psycopg.Error) -> StoreError:
    """Say that the server would not do it: its rights, or a rule of the schema; nothing was changed."""
    if isinstance(error, errors.InsufficientPrivilege):
        return StoreError(
            "The database user may not do this.",
            cause=f"PostgreSQL says: {error.diag.message_primary}.",
            fix="Grant it usage and create on the schema to migrate, and all rights on PyFlue's tables to run.",
            detail=kind_of_failure(error),
        )
    constraint = error.diag.constraint_name
    return StoreError(
        "The store refused a write.",
        cause=f"It would break the rule {constraint}." if constraint else "The statement failed.",
        fix="This is a defect of PyFlue or of the database's schema; nothing was changed.",
        detail=kind_of_failure(error),
    )
