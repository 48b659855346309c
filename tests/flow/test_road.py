"""The whole road, once, readable: a signed webhook over HTTP becomes an agent's signed reply over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from pyflue_web.embedded import front

from pyflue import create_agent, tool
from pyflue.channels.signed import SampleMessage, signed_delivery
from pyflue.clock import SystemClock
from pyflue.config import Secret, Settings, WorkerSettings
from pyflue.ids import DispatchId
from pyflue.stores.memory import MemoryStore
from pyflue.stores.postgres import PostgresStore
from pyflue.stores.protocol import Store
from pyflue.stores.sqlite import SQLiteStore
from pyflue.testing.flow import Flow
from pyflue.testing.models import ScriptedModel, calls
from pyflue.testing.platforms import STANDARD_SECRET


@tool
async def find_order(order: str) -> str:
    """Say where an order is."""
    return f"order {order} left the warehouse"


support = create_agent(lambda: {"instructions": "Help customers.", "tools": [find_order]})


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A store of each kind, on the real clock."""
    made: Store
    match request.param:
        case "memory":
            made = MemoryStore()
        case "sqlite":
            made = SQLiteStore(tmp_path / "pyflue.sqlite3")
        case _:
            made = PostgresStore(request.getfixturevalue("fresh_postgres_dsn"), pool=4)
    await made.migrate()
    await made.open()
    yield made
    await made.close()


async def test_a_signed_webhook_becomes_a_signed_reply(store: Store) -> None:
    # An agent with a tool, a model that uses it, and the front listening for webhooks.
    model = ScriptedModel(calls(("find_order", {"order": "17"})), "Your order 17 left the warehouse.")
    timings = Settings(worker=WorkerSettings(heartbeat=0.1, rescue=0.1))
    clock = SystemClock()
    async with (
        Flow({"support": support}, model=model, store=store, clock=clock, settings=timings) as flow,
        front(flow.runtime, "127.0.0.1", 0) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        # Somebody asks; the application that hears it signs what they said and posts it, twice to be sure.
        message = SampleMessage("Where is my order 17?", "msg-1", thread="order-17", sender="ada")
        delivery = signed_delivery("standard", Secret(STANDARD_SECRET), message, clock.now())
        accepted = await client.post(delivery.path, headers=delivery.headers, content=delivery.body)
        again = await client.post(delivery.path, headers=delivery.headers, content=delivery.body)

        # Accepted means durable: there is a receipt, and the second delivery gets the same one.
        assert (accepted.status_code, again.status_code) == (202, 202)
        receipt, duplicate = msgspec.json.decode(accepted.content), msgspec.json.decode(again.content)
        assert (receipt["duplicate"], duplicate["duplicate"]) == (False, True)
        assert receipt["dispatch_id"] == duplicate["dispatch_id"]
        dispatch_id = DispatchId(receipt["dispatch_id"])

        # A worker takes the conversation: the model asks for the tool, gets its result, and answers.
        row = await flow.outcome(dispatch_id)
        assert row.status == "completed"
        assert [len(call.messages) for call in flow.model_calls] == [1, 3]
        assert "Where is my order 17?" in str(flow.model_calls[0].messages)
        assert "order 17 left the warehouse" in str(flow.model_calls[1].messages)

        # The reply leaves through the outbox, signed, under a key its receiver can recognise.
        [reply] = await flow.platforms.wait_for(1, "standard")
        assert (reply.thread, reply.text) == ("order-17", "Your order 17 left the warehouse.")
        assert reply.key.startswith(dispatch_id)

        # Afterwards nothing is left over, and the events tell the story to whoever asks.
        await flow.until_idle()
        assert len(flow.platforms.messages()) == 1
        assert [event.type for event in await flow.events(dispatch_id)] == [
            "dispatch.accepted",
            "dispatch.started",
            "turn.answered",
            "tool.started",
            "tool.finished",
            "turn.answered",
            "dispatch.settled",
            "reply.sent",
        ]


async def test_a_forged_webhook_goes_nowhere() -> None:
    async with (
        Flow({"support": support}, clock=SystemClock()) as flow,
        front(flow.runtime, "127.0.0.1", 0) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        forged = signed_delivery(
            "standard", Secret("whsec_bm90IHRoZSBzZWNyZXQgeW91IGxvb2sgZm9y"), SampleMessage("hi", "m"), flow.clock.now()
        )
        refused = await client.post(forged.path, headers=forged.headers, content=forged.body)

        assert refused.status_code == 401
        assert (await flow.store.views.totals()).dispatches.get("queued", 0) == 0
        assert flow.model_calls == []
