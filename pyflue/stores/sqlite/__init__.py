"""The embedded store: one SQLite file, shared safely by the processes of one host (Linux and macOS)."""

from pyflue.stores.sqlite.sessions import SQLiteSessionStore
from pyflue.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteSessionStore", "SQLiteStore"]
