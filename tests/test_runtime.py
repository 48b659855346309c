"""Assembly: what a process is made of, opened once and closed once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from pyflue.bells.local import LocalBell
from pyflue.bells.redis import RedisBell
from pyflue.config import BrokerSettings, Project, Secrets, Settings, StorageSettings, WorkerSettings, load_project
from pyflue.dispatches import DispatchInput, SessionAddress
from pyflue.errors import ConfigurationError, SchemaError
from pyflue.ids import DispatchId
from pyflue.runtime import current_runtime, default_bell, open_runtime
from pyflue.stores.postgres import PostgresStore

FAST = WorkerSettings(heartbeat=0.02, rescue=0.02)
AGENT = 'from pyflue import create_agent\ndefault = create_agent(lambda: {"model": "offline/echo"})\n'


def project(root: Path, url: str = "memory:") -> Project:
    return Project(root, Settings(storage=StorageSettings(url=url), worker=FAST), Secrets(), {})


async def test_the_embedded_default_needs_nothing_and_migrates_itself(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "greeter.py").write_text(AGENT)
    (tmp_path / "pyflue.toml").write_text("")
    async with open_runtime(load_project(tmp_path / "pyflue.toml", {})) as runtime:
        assert runtime.registry.names == {"greeter"}
        assert isinstance(runtime.bell, LocalBell)
        await runtime.store.ready()
    assert (tmp_path / ".pyflue" / "pyflue.sqlite3").exists()


async def test_a_server_that_was_not_migrated_is_refused(tmp_path: Path, fresh_postgres_dsn: str) -> None:
    with pytest.raises(SchemaError, match="pyflue migrate"):
        async with open_runtime(project(tmp_path, fresh_postgres_dsn)):
            pytest.fail("it opened")
    store = PostgresStore(fresh_postgres_dsn, pool=2)
    await store.migrate()
    async with open_runtime(project(tmp_path, fresh_postgres_dsn)):
        pass


async def test_settings_that_cannot_be_used_are_refused_before_anything_opens(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        async with open_runtime(project(tmp_path, "mysql://x")):
            pytest.fail("it opened")


async def test_inside_the_block_it_is_the_current_one(tmp_path: Path) -> None:
    async with open_runtime(project(tmp_path)) as outer:
        assert await current_runtime() is outer
        async with open_runtime(project(tmp_path)) as inner:
            assert await current_runtime() is inner
        assert await current_runtime() is outer


async def test_without_a_block_a_loop_has_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYFLUE_DATABASE_URL", "memory:")
    monkeypatch.delenv("PYFLUE_REDIS_URL", raising=False)

    first, second = await current_runtime(), await current_runtime()
    assert first is second
    await first.close()


def test_a_broker_in_the_settings_means_its_bell(tmp_path: Path) -> None:
    with_broker = msgspec.structs.replace(
        project(tmp_path), settings=Settings(broker=BrokerSettings(url="redis://127.0.0.1:1/0"))
    )
    assert isinstance(default_bell(with_broker), RedisBell)
    assert isinstance(default_bell(project(tmp_path)), LocalBell)


async def test_events_are_followed_to_the_end_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "greeter.py").write_text(AGENT)
    async with open_runtime(project(tmp_path)) as runtime:
        receipt = await runtime.admitter.dispatch(SessionAddress("greeter", "one"), DispatchInput("hi"))
        seen: list[str] = []

        async def follow() -> None:
            async for event in runtime.events(receipt.dispatch_id, follow=True):
                seen.append(event.type)

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        await runtime.settled(receipt.dispatch_id, SessionAddress("greeter", "one"))
        async with asyncio.timeout(5):
            await following

        assert seen == ["dispatch.accepted", "dispatch.started", "turn.answered", "dispatch.settled"]
        rest = [event.seq async for event in runtime.events(receipt.dispatch_id, after=2)]
        assert rest == [3, 4]
        assert [event async for event in runtime.events("dsp_unknown", follow=True)] == []


async def test_aborting_what_does_not_exist_says_so(tmp_path: Path) -> None:
    async with open_runtime(project(tmp_path)) as runtime:
        assert await runtime.abort(DispatchId("dsp_unknown")) is None
        assert await runtime.abort_session(SessionAddress("a", "b").id) == 0


async def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    async with open_runtime(project(tmp_path)) as runtime:
        await runtime.close()
