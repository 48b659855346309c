"""The store for worker pools on many hosts: PostgreSQL 14 or later."""

from __future__ import annotations

from pyflue.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
