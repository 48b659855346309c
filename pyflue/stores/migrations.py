"""Numbered migrations: which there are, and what a database with some of them applied still lacks.

A migration is a file ``migrations/NNNN_name.sql``: numbered from 0001 without gaps, forward only, never edited once
released. A database records each one's SHA-256, so an edited file is noticed before it does harm. The dialect
supplies applying one file under a lock; everything decided is decided here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

from msgspec import Struct

from pyflue.errors import SchemaError

_FILE_NAME = re.compile(r"^(?P<number>\d{4})_[a-z0-9_]+\.sql$")


class Migration(Struct, frozen=True):
    """One file. ``name`` is its name without ``.sql``; ``checksum`` is the SHA-256 of its bytes, in hex."""

    number: int
    name: str
    sql: str
    checksum: str


class AppliedMigration(Struct, frozen=True):
    """What a database remembers of a migration."""

    number: int
    name: str
    checksum: str


def load_migrations(package: str) -> tuple[Migration, ...]:
    """Read ``migrations/*.sql`` of ``package`` (a dotted module name), in order.

    Raises:
        ValueError: a file is not named ``NNNN_name.sql``, or the numbers are not 1, 2, 3 …
    """
    found: list[Migration] = []
    for file in files(package).joinpath("migrations").iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _FILE_NAME.match(file.name)
        if match is None:
            raise ValueError(f"migration {file.name} is not named NNNN_name.sql")
        content = file.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        name = file.name.removesuffix(".sql")
        found.append(Migration(int(match["number"]), name, content.decode(), checksum))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the migrations of {package} are not numbered 1, 2, 3 …")
    return tuple(found)


def missing_migrations(known: Sequence[Migration], applied: Sequence[AppliedMigration]) -> tuple[Migration, ...]:
    """Return what is still to be applied, in order.

    Raises:
        SchemaError: the database has a migration this release does not know, or another text of one it does.
    """
    by_number = {migration.number: migration for migration in known}
    for done in applied:
        ours = by_number.get(done.number)
        if ours is None:
            raise SchemaError(f"The database has migration {done.name}, made by a newer release.")
        if ours.checksum != done.checksum:
            raise SchemaError(f"Migration {done.name} was changed after it was applied.")
    numbers = {done.number for done in applied}
    return tuple(migration for migration in known if migration.number not in numbers)


def check_migrations(known: Sequence[Migration], applied: Sequence[AppliedMigration]) -> None:
    """Return when the database's schema is exactly this release's.

    Raises:
        SchemaError: migrations are missing, changed, or of a newer release.
    """
    missing = missing_migrations(known, applied)
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise SchemaError(f"Migrations were not applied yet: {names}.")
