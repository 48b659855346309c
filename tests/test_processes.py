"""The commands of compose.yaml as plain processes: they come up in its order, are healthy, and stop when told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests import commands
from tests.services import free_port

BIN = Path(sys.executable).parent
PATIENCE = 40.0  # seconds for a process to come up or to stop on a loaded machine; a worker's drain time is 25


@pytest.fixture
def environment(fresh_postgres_dsn: str, redis_url: str, redis_namespace: str) -> dict[str, str]:
    """The environment of a deployment's processes, as compose.yaml sets it."""
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYFLUE_DATABASE_URL": fresh_postgres_dsn,
        "PYFLUE_REDIS_URL": redis_url,
        "PYFLUE_REDIS_NAMESPACE": redis_namespace,
        "STANDARD_WEBHOOK_SECRET": "whsec_dGhpcyBpcyBhIHNlY3JldCBmb3IgdGVzdHMhIQ==",
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one agent that needs no network."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text(
        'from pyflue import create_agent\n\ndefault = create_agent(lambda context: {"model": "offline/echo"})\n'
    )
    (tmp_path / "pyflue.toml").write_text('[channels.standard]\nagent = "echo"\nreply_url = "http://127.0.0.1:9/"\n')
    return tmp_path


@contextlib.contextmanager
def running(command: tuple[str, ...], project: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends; what it said is shown if the test fails."""
    log = project / f"{command[1]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        print(f"--- {' '.join(command)}\n{log.read_text(errors='replace')}")


def until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until the condition holds; fail if the process ends before, or takes too long."""
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < give_up, "it took too long"
        time.sleep(0.05)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def live_workers(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select count(*) from workers where status = 'live'").fetchone()
    return int(row[0]) if row else 0


def migrate(project: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        commands.MIGRATE, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def test_migrating_again_changes_nothing(project: Path, environment: dict[str, str]) -> None:
    first, second = migrate(project, environment), migrate(project, environment)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "applied" in first.stdout
    assert "applied" not in second.stdout


@pytest.mark.parametrize("command", [commands.web("127.0.0.1", 0), commands.WORKER], ids=["web", "worker"])
def test_a_process_does_not_start_without_its_schema_and_says_what_to_do(
    project: Path, environment: dict[str, str], command: tuple[str, ...]
) -> None:
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=PATIENCE)

    assert done.returncode != 0
    assert "pyflue migrate" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_front_is_ready_on_the_port_it_was_given_and_stops_when_told(
    project: Path, environment: dict[str, str]
) -> None:
    assert migrate(project, environment).returncode == 0
    port = free_port()

    with running(commands.web("127.0.0.1", port), project, environment) as front:
        until(lambda: is_ready(port), front)
        front.send_signal(signal.SIGTERM)

        assert front.wait(PATIENCE) == 0


def test_workers_register_beside_each_other_and_sign_off_when_told(project: Path, environment: dict[str, str]) -> None:
    assert migrate(project, environment).returncode == 0
    dsn = environment["PYFLUE_DATABASE_URL"]

    with (
        running(commands.WORKER, project, environment) as one,
        running(commands.WORKER, project, environment) as two,
    ):
        until(lambda: live_workers(dsn) == 2, one)
        one.send_signal(signal.SIGTERM)
        assert one.wait(PATIENCE) == 0
        assert live_workers(dsn) == 1

        two.send_signal(signal.SIGTERM)
        assert two.wait(PATIENCE) == 0
        assert live_workers(dsn) == 0
