"""The commands of compose.yaml as plain processes: they come up in its order, are healthy, and stop when told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from pyflue.channels.signed import SampleMessage, signed_delivery
from pyflue.clock import SystemClock
from pyflue.config import Secret
from pyflue.testing.anthropic import FakeAnthropic
from pyflue.testing.platforms import FakePlatforms
from tests import commands
from tests.services import free_port

BIN = Path(sys.executable).parent
STANDARD_SECRET = "whsec_dGhpcyBpcyBhIHNlY3JldCBmb3IgdGVzdHMhIQ=="
PATIENCE = 40.0  # seconds for a process to come up or to stop on a loaded machine; a worker's drain time is 25


@pytest.fixture
def environment(fresh_postgres_dsn: str, redis_url: str, redis_namespace: str) -> dict[str, str]:
    """The environment of a deployment's processes, as compose.yaml sets it."""
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYFLUE_DATABASE_URL": fresh_postgres_dsn,
        "PYFLUE_REDIS_URL": redis_url,
        "PYFLUE_REDIS_NAMESPACE": redis_namespace,
        "STANDARD_WEBHOOK_SECRET": STANDARD_SECRET,
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


@pytest.mark.slow
async def test_deliveries_come_in_and_replies_go_out_with_more_turns_at_once_than_the_default(
    project: Path, environment: dict[str, str]
) -> None:
    conversations = 150  # the default is 100 turns
    async with FakeAnthropic() as model, FakePlatforms(standard_secret=Secret(STANDARD_SECRET)) as platforms:
        environment |= {"ANTHROPIC_API_KEY": "sk-ant-fake", "ANTHROPIC_BASE_URL": model.url}
        (project / "agents" / "echo.py").write_text(
            'from pyflue import create_agent\n\ndefault = create_agent(lambda: {"model": "anthropic/fake-slow-4000"})\n'
        )
        (project / "pyflue.toml").write_text(
            f'[channels.standard]\nagent = "echo"\nreply_url = "{platforms.reply_url}"\n'
        )
        assert (await asyncio.to_thread(migrate, project, environment)).returncode == 0
        port = free_port()
        worker_command = (*commands.WORKER, "--turns", "1000")

        with (
            running(commands.web("127.0.0.1", port), project, environment) as front,
            running(worker_command, project, environment) as worker,
        ):
            await asyncio.to_thread(until, lambda: is_ready(port), front)
            await asyncio.to_thread(until, lambda: live_workers(environment["PYFLUE_DATABASE_URL"]) == 1, worker)
            await deliver(port, conversations)
            async with asyncio.timeout(PATIENCE):
                replies = await platforms.wait_for(conversations, "standard")

            assert model.peak > 100
            assert len({reply.thread for reply in replies}) == conversations
            for process in (front, worker):
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, PATIENCE) == 0


async def deliver(port: int, conversations: int) -> None:
    """Say something in so many threads at once, signed as the sender would."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:

        async def say(number: int) -> int:
            message = SampleMessage(f"hello {number}", delivery_id=f"delivery-{number}", thread=f"thread-{number}")
            signed = signed_delivery("standard", Secret(STANDARD_SECRET), message, SystemClock().now())
            return (await client.post(signed.path, content=signed.body, headers=signed.headers)).status_code

        statuses = await asyncio.gather(*(say(number) for number in range(conversations)))
    assert set(statuses) == {202}
