"""The self-fence after a pause: what was about to happen under a lease that may be another's does not happen."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import cast

from msgspec.structs import replace

from pyflue import tool
from pyflue.channels.protocol import Channel, RawRequest, SendReceipt
from pyflue.clock import SystemClock
from pyflue.config import Settings
from pyflue.dispatches import OutboxItem
from pyflue.stores.memory import MemoryStore
from pyflue.testing.clock import FakeClock
from pyflue.testing.flow import FAST, Flow
from pyflue.testing.models import ScriptedModel, calls
from tests.session.agents import an_agent, results


class Connecting:
    """A channel that is still connecting to its platform when ``started`` is set, and posts once ``connected`` is.

    ``posted``: which attempts were.
    """

    name = "standard"
    receipt_shape = "receipt"

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.connected = asyncio.Event()
        self.posted: list[int] = []

    def receive(self, request: RawRequest, now: object) -> list[object]:
        raise AssertionError("nothing is received here")

    def split(self, text: str) -> list[str]:
        return [text]

    async def send(self, item: OutboxItem) -> SendReceipt:
        self.started.set()
        await self.connected.wait()
        self.posted.append(item.attempts)
        return SendReceipt("1")

    async def close(self) -> None:
        pass


async def test_a_process_that_wakes_up_after_its_lease_posts_nothing_it_was_about_to_post() -> None:
    timings = replace(FAST, heartbeat=0.4, lease=0.8, fence_margin=0.2)
    channel = Connecting()
    async with Flow({"agent": an_agent()}, settings=Settings(worker=timings), clock=SystemClock()) as flow:
        first = flow.worker
        await flow.start_worker(channels={"standard": cast(Channel, channel)})
        await first.stop()
        await flow.receive("standard", "hello")
        await channel.started.wait()

        asyncio.get_running_loop().call_later(0.01, channel.connected.set)
        time.sleep(1.0)  # noqa: ASYNC251 - the whole process stands still, as under SIGSTOP
        await flow.until(lambda: channel.posted)

        assert channel.posted == [2], "the first attempt was another's by then"


async def test_a_process_that_wakes_up_after_its_lease_does_not_go_on_with_a_tool() -> None:
    started, go_on, acted = asyncio.Event(), asyncio.Event(), False

    @tool
    async def act() -> str:
        """Wait, then have an effect."""
        nonlocal acted
        started.set()
        await go_on.wait()
        acted = True
        return "acted"

    timings = replace(FAST, heartbeat=0.4, lease=0.8, fence_margin=0.2)
    model = ScriptedModel(calls(("act", {})), "looked into it")
    async with Flow(
        {"agent": an_agent(act)}, model=model, settings=Settings(worker=timings), clock=SystemClock()
    ) as flow:
        receipt = await flow.dispatch("go")
        await started.wait()

        asyncio.get_running_loop().call_later(0.01, go_on.set)
        time.sleep(1.0)  # noqa: ASYNC251 - the whole process stands still, as under SIGSTOP

        assert (await flow.outcome(receipt)).status == "completed"
        assert results(await flow.journal(receipt))["toolu_1_0"][0] == "unknown"
        assert not acted


async def test_a_turn_that_is_cancelled_before_it_begins_gives_its_slot_back() -> None:
    async with Flow({"agent": an_agent()}, settings=Settings(worker=replace(FAST, turns=1))) as flow:
        row = await flow.outcome(await flow.dispatch("hello"))
        worker = flow.worker.worker

        worker.wake(row.session_id)  # takes the only slot; the task that will use it has not run yet
        await worker.abandon()

        async with asyncio.timeout(5):
            await worker.accept(row.session_id)


async def test_an_outage_of_the_store_makes_no_worker_judge_another_or_itself() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    async with Flow({"agent": an_agent()}, store=store, clock=clock) as flow:
        workers = [flow.worker, await flow.start_worker()]
        names = [one.worker.id for one in workers]
        held = [one.faults.hold("fleet.heartbeat") for one in workers]
        for hold in held:
            await hold.reached.wait()

        clock.advance(timedelta(seconds=flow.settings.worker.grace + 1))  # less than the fence
        for name in names:
            store.fleet.drop_liveness(name)  # as a database that was restarted drops all connections
        rounds = workers[0].faults.calls["ledger.claim_due"]
        await flow.until(lambda: workers[0].faults.calls["ledger.claim_due"] > rounds + 3)
        held[0].release.set()
        rounds = workers[0].faults.calls["ledger.claim_due"]
        await flow.until(lambda: workers[0].faults.calls["ledger.claim_due"] > rounds + 3)
        held[1].release.set()
        await flow.until(lambda: workers[1].faults.calls["fleet.heartbeat"] > 3)

        assert [one.worker.id for one in workers] == names
        assert {row.status for row in await store.views.workers()} == {"live"}
