"""The worker as a process: woken through Redis, and working all the same without it."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from pyflue_web.process import open_front

from pyflue.config import load_project
from pyflue.dispatches import DispatchInput, SessionAddress
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import DispatchQuery
from tests.processes import command, make_project
from tests.services import free_port
from tests.waiting import until

ADDRESS = SessionAddress("triage", "thread-1")


@pytest.mark.parametrize("broker", ["redis", "none", "absent"])
async def test_it_completes_what_was_admitted_and_ends_at_sigterm(
    tmp_path: Path, fresh_postgres_dsn: str, redis_url: str, redis_namespace: str, broker: str
) -> None:
    url = {"redis": redis_url, "none": "", "absent": f"redis://127.0.0.1:{free_port()}/0"}[broker]
    env = {
        "PYFLUE_DATABASE_URL": fresh_postgres_dsn,
        "PYFLUE_REDIS_URL": url,
        "PYFLUE_REDIS_NAMESPACE": redis_namespace,
    }
    root = make_project(tmp_path)
    store = open_store(fresh_postgres_dsn)
    await store.migrate()
    await store.open()

    async with open_front(load_project(root / "pyflue.toml", env)) as front, command(root, "worker", env=env) as worker:
        await worker.until_logged("worker.started")
        receipt = await front.admitter.dispatch(ADDRESS, DispatchInput(f"hello {secrets.token_hex(4)}"))

        async def completed() -> bool:
            row = await store.views.dispatch(receipt.dispatch_id)
            return row is not None and row.status == "completed"

        await until(completed, 20)
        assert await worker.stop() == 0, worker.text

    assert worker.logged("worker.stopped")
    assert all(row.status == "dead" for row in await store.views.workers())
    await store.close()


async def test_on_the_embedded_store_front_and_worker_are_two_processes_that_meet(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    project = load_project(root / "pyflue.toml", {})
    async with open_front(project) as front, command(root, "worker", "--turns", "2") as worker:
        started = await worker.until_logged("worker.started")
        receipt = await front.admitter.dispatch(ADDRESS, DispatchInput("hello"))

        async def completed() -> bool:
            row = await front.store.views.dispatch(receipt.dispatch_id)
            return row is not None and row.status == "completed"

        await until(completed, 20)
        assert started["turns"] == 2
        assert await worker.stop() == 0, worker.text


async def test_what_it_lacks_is_said_at_the_start(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    (root / "agents" / "torn.py").write_text("raise RuntimeError('no luck')\n", "utf-8")
    with (root / "pyflue.toml").open("a", encoding="utf-8") as file:
        file.write('\n[channels.github]\nagent = "nobody"\n')

    async with command(root, "worker") as worker:
        await worker.until_logged("worker.started")
        broken, missing = await worker.until_logged("agent.broken"), await worker.until_logged("channel.missing")
        agent = await worker.until_logged("channel.agent_missing")
        assert await worker.stop() == 0, worker.text

    assert (broken["agent"], broken["reason"]) == ("torn", "agents/torn.py, line 1: RuntimeError: no luck")
    assert (missing["channel"], agent["agent"]) == ("github", "nobody")


ASKER = """\
from pyflue import create_agent, init_agent, tool

helper = create_agent(lambda: {"model": "offline/echo"}, name="helper")


@tool
async def ask() -> str:
    "Ask the helper."
    return (await (await (await init_agent(helper)).session()).prompt("hello")).text


default = create_agent(lambda: {"model": "offline/echo", "tools": [ask]})
"""


async def test_what_a_tool_prompts_is_kept_where_the_worker_keeps_its_own(
    tmp_path: Path, fresh_postgres_dsn: str, redis_url: str, redis_namespace: str
) -> None:
    broker = f'[broker]\nurl = "{redis_url}"\nnamespace = "{redis_namespace}"\n'
    root, elsewhere = make_project(tmp_path / "project", f'[storage]\nurl = "{fresh_postgres_dsn}"\n{broker}'), tmp_path
    (root / "agents" / "asker.py").write_text(ASKER, "utf-8")
    store = open_store(fresh_postgres_dsn)
    await store.migrate()
    await store.open()

    async with (
        open_front(load_project(root / "pyflue.toml", {})) as front,
        command(elsewhere, "worker", "--config", str(root / "pyflue.toml")) as worker,
    ):
        await worker.until_logged("worker.started")
        receipt = await front.admitter.dispatch(SessionAddress("asker", "1"), DispatchInput("[tool:ask]"))

        async def completed() -> bool:
            row = await store.views.dispatch(receipt.dispatch_id)
            return row is not None and row.status == "completed"

        await until(completed, 20)
        assert await worker.stop() == 0, worker.text

    asked = await store.views.dispatches(DispatchQuery(agent="helper"))
    await store.close()
    assert [row.status for row in asked] == ["completed"]
    assert not (elsewhere / ".pyflue").exists()


STUBBORN = """\
import asyncio

from pyflue import create_agent, tool


@tool
async def stay() -> str:
    "Stay."
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


default = create_agent(lambda: {"model": "offline/echo", "tools": [stay]})
"""


async def test_a_tool_that_will_not_be_cancelled_does_not_keep_the_process(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    (root / "agents" / "stubborn.py").write_text(STUBBORN, "utf-8")
    settings = (root / "pyflue.toml").read_text("utf-8").replace("drain = 2.0", "drain = 0.2\ngrace = 0.2")
    (root / "pyflue.toml").write_text(settings, "utf-8")
    project = load_project(root / "pyflue.toml", {})

    async with open_front(project) as front, command(root, "worker") as worker:
        await worker.until_logged("worker.started")
        receipt = await front.admitter.dispatch(SessionAddress("stubborn", "1"), DispatchInput("[tool:stay {}]"))

        async def staying() -> bool:
            events = await front.store.events.read(receipt.dispatch_id, 0, 100)
            return any(event.type == "tool.started" for event in events)

        await until(staying, 20)
        assert await worker.stop() == 0, worker.text

    assert worker.logged("worker.tasks_left")
