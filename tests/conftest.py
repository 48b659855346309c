"""Fixtures every test may use: real servers, fresh databases, namespaces of one's own."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator

import pytest

from tests.services import forget_namespace, fresh_database, shared_postgres, shared_redis

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background deaf to Ctrl-C, and the commands the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A DSN of a PostgreSQL server on which databases may be created."""
    with shared_postgres() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def postgres_dsn(postgres_server: str) -> Iterator[str]:
    """A database of this test process alone, empty at its start, dropped at its end."""
    with fresh_database(postgres_server) as dsn:
        yield dsn


@pytest.fixture
def fresh_postgres_dsn(postgres_server: str) -> Iterator[str]:
    """A database of this test alone."""
    with fresh_database(postgres_server) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that others use too: keep to ``redis_namespace``."""
    with shared_redis() as url:
        yield url


@pytest.fixture
def redis_namespace(redis_url: str) -> Iterator[str]:
    """A key prefix of this test alone; its keys are deleted afterwards."""
    namespace = f"pyflue-test-{secrets.token_hex(6)}"
    yield namespace
    forget_namespace(redis_url, namespace)
