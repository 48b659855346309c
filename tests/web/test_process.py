"""The front as a process: it waits for its database, refuses a wrong schema, and ends without losing anything."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from pyflue_web.process import open_front

from pyflue.channels.signed import SampleMessage, signed_delivery
from pyflue.config import Project, Secret, load_project
from pyflue.errors import SchemaError
from pyflue.stores.choose import open_store
from tests.processes import STANDARD_SECRET, Process, command, make_project
from tests.services import OwnPostgres
from tests.waiting import until


async def deliver(process: Process, delivery_id: str = "d-1") -> httpx2.Response:
    port = (await process.until_logged("web.started"))["port"]
    sample = signed_delivery("standard", Secret(STANDARD_SECRET), SampleMessage("hi", delivery_id), datetime.now(UTC))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        return await client.post(sample.path, headers=sample.headers, content=sample.body)


def project_of(root: Path, env: dict[str, str]) -> Project:
    return load_project(root / "pyflue.toml", {"STANDARD_WEBHOOK_SECRET": STANDARD_SECRET, **env})


async def test_on_the_embedded_store_it_serves_until_sigterm_and_what_it_accepted_is_there(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    async with command(root, "web", "--port", "0") as web:
        answer = await deliver(web)
        assert await web.stop() == 0, web.text

    assert answer.status_code == 202
    store = open_store(project_of(root, {}).database_url)
    await store.open()
    assert await store.views.dispatch(answer.json()["dispatch_id"])
    await store.close()
    assert web.logged("web.stopped")
    assert "signature" not in web.text


async def test_it_waits_for_a_database_that_starts_later_and_survives_its_restart(tmp_path: Path) -> None:
    root = make_project(tmp_path)
    with OwnPostgres() as server:
        env = {"PYFLUE_DATABASE_URL": server.dsn}
        store = open_store(server.dsn)
        await store.migrate()
        await store.close()
        await asyncio.to_thread(server.stop)

        async with command(root, "web", "--port", "0", env=env) as web:
            await web.until_logged("web.store_awaited")
            await asyncio.to_thread(server.start)
            assert (await deliver(web, "before")).status_code == 202

            await asyncio.to_thread(server.stop, immediate=True)
            refused = await deliver(web, "during")
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert refused.headers["retry-after"]

            await asyncio.to_thread(server.start)

            async def accepts() -> bool:
                return (await deliver(web, "during")).status_code == 202

            await until(accepts)
            assert (await deliver(web, "before")).json()["duplicate"]
            assert await web.stop() == 0, web.text


async def test_a_database_without_the_schema_is_refused_with_what_to_do(
    tmp_path: Path, fresh_postgres_dsn: str
) -> None:
    project = project_of(make_project(tmp_path), {"PYFLUE_DATABASE_URL": fresh_postgres_dsn})

    with pytest.raises(SchemaError, match="pyflue migrate"):
        async with open_front(project):
            pass
