"""What the engine promises, it promises on every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from pyflue.clock import Clock
from pyflue.errors import CommitUnknownError
from pyflue.models.protocol import ModelFailure
from pyflue.stores.memory import MemoryStore
from pyflue.stores.postgres import PostgresStore
from pyflue.stores.protocol import Store
from pyflue.stores.sqlite import SQLiteStore
from pyflue.testing.clock import FakeClock
from pyflue.testing.flow import Flow
from pyflue.testing.models import Held, ScriptedModel, calls
from tests.session.agents import Bench, an_agent, kinds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    made: Store
    match request.param:
        case "memory":
            made = MemoryStore(clock)
        case "sqlite":
            made = SQLiteStore(tmp_path / "pyflue.sqlite3", clock=clock)
        case _:
            made = PostgresStore(request.getfixturevalue("fresh_postgres_dsn"), pool=4, clock=clock)
    await made.migrate()
    await made.open()
    yield made
    await made.close()


async def test_a_conversation_survives_deaths_and_lost_answers_in_order_and_once(store: Store, clock: Clock) -> None:
    pay, look = Bench("pay"), Bench("look", retry="safe")
    pay.let_go.set()
    model = ScriptedModel(calls(("pay", {}), ("look", {})), "first answer", "second answer", then="late")
    async with Flow({"agent": an_agent(pay.tool, look.tool)}, model=model, store=store, clock=clock) as flow:
        flow.worker.faults.fail("ledger.begin", CommitUnknownError(), when="after")
        first = await flow.receive("standard", "one")
        second = await flow.receive("standard", "two")
        await look.reached.wait()
        await flow.until(lambda: pay.finished == 1)
        await flow.take_over()
        look.let_go.set()
        flow.worker.faults.fail("ledger.settle", CommitUnknownError(), when="after")
        rows = [await flow.outcome(first), await flow.outcome(second)]
        replies = await flow.replies(count=2)
        await flow.until_idle()

        assert [row.status for row in rows] == ["completed", "completed"]
        assert replies == ["first answer", "second answer"]
        assert pay.began == 1
        assert kinds(await flow.journal(first)).count("input") == 2


async def test_aborts_parking_and_stopping_leave_nothing_behind(store: Store, clock: Clock) -> None:
    held = Held("never")
    busy = ModelFailure("overloaded", "model_overloaded", "Busy.", retry_after=timedelta(seconds=5))
    async with Flow(
        {"agent": an_agent()}, model=ScriptedModel(held, busy, "after the pause"), store=store, clock=clock
    ) as flow:
        aborted = await flow.dispatch("one")
        parked = await flow.dispatch("two")
        await held.reached.wait()
        await store.ledger.request_abort(aborted.dispatch_id)
        assert (await flow.outcome(aborted)).status == "aborted"

        async def is_parked() -> bool:
            return (await flow.row(parked)).available_at > flow.clock.now()

        await flow.until(is_parked)
        await flow.start_worker()
        await flow.workers[0].stop()
        await flow.pass_time(5)
        row = await flow.outcome(parked)
        await flow.until_idle()

        assert (row.status, row.attempts) == ("completed", 1)
        assert row.result is not None
        assert row.result.text == "after the pause"
