"""Deployments the flow tests share: starting processes is dear, so one serves a module and is mended after each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from pyflue.dispatches import ReplyMode
from tests.flow.deployment import Deployment, deployed
from tests.flow.nursery import Nursery
from tests.services import forget_namespace, fresh_database


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where processes come from."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def reply_mode() -> ReplyMode:
    """How the channels reply; a module may say otherwise."""
    return "auto"


@pytest.fixture(scope="module")
def embedded(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, reply_mode: ReplyMode) -> Iterator[Deployment]:
    """One process on SQLite: what `pyflue dev` runs."""
    root = tmp_path_factory.mktemp("embedded")
    env = {"PYFLUE_DATABASE_URL": f"sqlite:///{root}/pyflue.sqlite3"}
    with deployed(nursery, root, "embedded", env, reply=reply_mode) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def pool(
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: str,
    redis_url: str,
    reply_mode: ReplyMode,
) -> Iterator[Deployment]:
    """A front and two workers on Postgres and Redis."""
    namespace = f"pyflue-test-{secrets.token_hex(6)}"
    with fresh_database(postgres_server) as dsn:
        env = {
            "PYFLUE_DATABASE_URL": dsn,
            "PYFLUE_REDIS_URL": redis_url,
            "PYFLUE_REDIS_NAMESPACE": namespace,
        }
        with deployed(nursery, tmp_path_factory.mktemp("pool"), "pool", env, reply=reply_mode) as deployment:
            yield deployment
    forget_namespace(redis_url, namespace)


@pytest.fixture(params=["embedded", "pool"])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    """Each of the two deployments."""
    found: Deployment = request.getfixturevalue(request.param)
    return found
