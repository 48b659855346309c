"""The flow moves time for its workers without one of them noticing anything odd."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pyflue.testing.flow import Flow
from tests.session.agents import an_agent


async def test_time_does_not_pass_while_a_workers_heartbeat_is_still_on_its_way_back() -> None:
    async with Flow({"agent": an_agent()}) as flow:
        slow, other = flow.worker, await flow.start_worker()
        asking = slow.faults.hold("fleet.heartbeat", when="before")
        await asking.reached.wait()
        answering = slow.faults.hold("fleet.heartbeat", when="after")
        began = flow.clock.now()
        passing = asyncio.create_task(flow.pass_time(2))
        await flow.until(lambda: flow.clock.now() > began)
        asking.release.set()  # the store notes the new time, while the worker has asked at the old one
        await answering.reached.wait()
        beats = other.faults.calls["fleet.heartbeat"]
        await flow.until(lambda: other.faults.calls["fleet.heartbeat"] > beats + 3)

        assert flow.clock.now() - began == timedelta(seconds=1)
        answering.release.set()
        await passing
        assert flow.clock.now() - began == timedelta(seconds=2)
