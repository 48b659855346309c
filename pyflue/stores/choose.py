"""From a storage URL to a store. Each kind is imported only when it is asked for."""

from __future__ import annotations

from typing import Final

from pyflue.clock import Clock
from pyflue.errors import ConfigurationError
from pyflue.stores.protocol import Store

_SQLITE: Final = "sqlite:///"
_POSTGRES: Final = ("postgresql://", "postgres://")


def open_store(url: str, *, pool: int = 6, clock: Clock | None = None) -> Store:
    """Make the store that ``url`` names: ``memory:``, ``sqlite:///path`` or ``postgresql://…``. Not opened yet.

    After ``sqlite:///`` comes a path, absolute if it begins with another ``/``. ``pool`` is the number of connections a
    process may hold (Postgres only); ``clock`` replaces the store's own time, for tests.

    Raises:
        ConfigurationError: the URL is of another kind. The URL itself is never part of the message.
    """
    if url in ("memory:", "memory://"):
        from pyflue.stores.memory import MemoryStore

        return MemoryStore(clock)
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        from pyflue.stores.sqlite import SQLiteStore

        return SQLiteStore(url.removeprefix(_SQLITE), clock=clock)
    if url.startswith(_POSTGRES):
        from pyflue.stores.postgres import PostgresStore

        return PostgresStore(url, pool=pool, clock=clock)
    raise _unknown(url)


def _unknown(url: str) -> ConfigurationError:
    scheme, separator, _ = url.partition("://")
    kind = f"{scheme}://" if separator and scheme.isalpha() else "no scheme"
    return ConfigurationError(
        f"The storage URL is of a kind that PyFlue does not know ({kind}).",
        fix="Use sqlite:///path/to/file, postgresql://user@host/name, or memory: for tests.",
    )
