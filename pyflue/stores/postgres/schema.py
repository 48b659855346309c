"""Creating and checking the schema, on a connection outside the pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString, cast

import psycopg
from psycopg import AsyncConnection

from pyflue.stores.migrations import AppliedMigration, Migration, missing_migrations
from pyflue.stores.postgres.pool import Pool, Row, refused, unavailable
from pyflue.stores.queries import Queries


async def applied_migrations(pool: Pool) -> list[AppliedMigration]:
    """Read which migrations this database remembers; none if it was never migrated."""
    if not (await pool.read("store_ready.schema_exists", {}))[0][0]:
        return []
    return [AppliedMigration(*row) for row in await pool.read("store_ready.schema_applied", {})]


async def migrate(conninfo: str, queries: Queries, known: Sequence[Migration]) -> list[str]:
    """Apply what is missing, one transaction a file, while an advisory lock keeps others out; return the names.

    Raises:
        StoreUnavailableError: the database does not answer.
        SchemaError: it was migrated by a newer release, or a file was changed since.
        StoreError: the database user has not the rights.
    """
    try:
        connection = await AsyncConnection.connect(conninfo, autocommit=True)
    except (psycopg.OperationalError, OSError) as error:
        raise unavailable(error) from None
    try:
        await _run(connection, queries["store_ready.schema_lock"])
        await _run(connection, queries["store_ready.schema_create"])
        cursor = await _run(connection, queries["store_ready.schema_applied"])
        applied = [AppliedMigration(*row) for row in await cursor.fetchall()]
        missing = missing_migrations(known, applied)
        for migration in missing:
            await _apply(connection, queries, migration)
        return [migration.name for migration in missing]
    except psycopg.OperationalError as error:
        raise unavailable(error) from None
    except psycopg.Error as error:
        raise refused(error) from None
    finally:
        await connection.close()


async def _apply(connection: AsyncConnection[Row], queries: Queries, migration: Migration) -> None:
    async with connection.transaction():
        await _run(connection, migration.sql)
        await connection.execute(
            cast(LiteralString, queries["store_ready.schema_record"]),
            {"number": migration.number, "migration": migration.name, "checksum": migration.checksum},
        )


async def _run(connection: AsyncConnection[Row], sql: str) -> psycopg.AsyncCursor[Row]:
    return await connection.execute(cast(LiteralString, sql))
