"""The crash matrix: at every place of the road a process dies, comes back, and nothing accepted is lost or doubled."""

from __future__ import annotations

import signal

import pytest

from pyflue.testing.crash import POINTS
from tests.flow.deployment import Deployment
from tests.flow.run import Run, running
from tests.flow.survival import CHANNELS, converse_on, judge, survive, until_back
from tests.waiting import until

TWO_TOOLS = '[tool:pay {"amount": 5}] [tool:look {"name": "stock"}]'
STEPS = '[tool:ship {"parcel": "box"}] [tool:pay {"amount": 7}]'
LONG = "and at length: " + "word " * 15_000  # more than any platform takes in one message but the standard one's
SLOW = '[tool:wait {"seconds": 1.0}]'
# One process runs all of it: the deployments are started once, and no two heavy tests run at a time.
pytestmark = pytest.mark.xdist_group("flow")

TERMINATED = ("after_drain", "before_hand_back", "after_hand_back", "before_retire")
AFTER_A_DEATH = ("after_rescue_claim", "after_reap", "after_free")
OVERLOADED = ("before_park", "after_park", "before_release", "after_release")
REFUSED = ("before_delay", "after_delay", "after_take")
DELIVERING = ("before_send", "after_send", "after_sent")
BESIDE_KEPT = ("after_effect", "before_settle", "after_settle")
REPLYING = ("before_reply", "after_reply")  # tests/flow/test_crash_reply_tool.py
KEPT = tuple(point.name for point in POINTS if point.call.startswith("kept."))
SPECIAL = (*TERMINATED, *AFTER_A_DEATH, *OVERLOADED, *REFUSED, *DELIVERING, *REPLYING, *KEPT)
ORDINARY = [point.name for point in POINTS if point.name not in SPECIAL]


@pytest.mark.parametrize("point", ORDINARY)
async def test_a_process_that_dies_loses_and_doubles_nothing(deployment: Deployment, point: str) -> None:
    async with running(deployment) as run:
        await survive(run, point, TWO_TOOLS, STEPS)

        await judge(run)


@pytest.mark.parametrize("point", AFTER_A_DEATH)
async def test_whoever_rescues_may_die_too(deployment: Deployment, point: str) -> None:
    async with running(deployment) as run:
        await survive(run, point, TWO_TOOLS, STEPS, after="after_begin")

        await judge(run)


@pytest.mark.parametrize("point", OVERLOADED)
async def test_parked_work_outlives_who_parked_it(deployment: Deployment, point: str) -> None:
    async with running(deployment) as run:
        await run.script_model({"status": 529}, {"status": 529})
        await survive(run, point, TWO_TOOLS, "and then?")

        await judge(run)


@pytest.mark.parametrize("point", REFUSED)
async def test_a_refused_reply_outlives_who_sent_it(deployment: Deployment, point: str) -> None:
    async with running(deployment) as run:
        await run.fail_platform({"platform": "standard", "status": 503})
        await survive(run, point, TWO_TOOLS, "and then?")

        await judge(run)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("point", DELIVERING)
async def test_a_reply_is_posted_once_whoever_dies_posting_it(deployment: Deployment, point: str, channel: str) -> None:
    async with running(deployment) as run:
        await survive(run, point, TWO_TOOLS, "and then?", channels=[channel])

        await judge(run)


@pytest.mark.parametrize("point", DELIVERING)
async def test_a_reply_in_parts_is_posted_whole_whoever_dies_between_them(deployment: Deployment, point: str) -> None:
    async with running(deployment) as run:
        await survive(run, point, LONG, "and then?", nth=3)

        await judge(run)


@pytest.mark.parametrize("point", [*KEPT, *BESIDE_KEPT])
async def test_an_agent_with_its_own_store_loses_and_doubles_nothing(deployment: Deployment, point: str) -> None:
    async with running(deployment, kept=True) as run:
        await survive(run, point, TWO_TOOLS, STEPS)

        history = await judge(run)
        assert set(history.stored.kept) == set(history.stored.lines)


@pytest.mark.parametrize("point", TERMINATED)
async def test_a_process_killed_while_it_stops_loses_nothing(deployment: Deployment, point: str) -> None:
    async with running(deployment) as run:
        with run.fault(point):
            deployment.crashes.arm(point)
            for _ in range(3):  # on a loaded machine the slow tools may be done before the signal arrives
                if deployment.crashes.armed():
                    await stop_in_the_middle(run)
            await until(lambda: not deployment.crashes.armed(), 20)
            await until_back(run)

        await judge(run)


async def stop_in_the_middle(run: Run) -> None:
    """Tell every worker to stop while slow tools run, and wait until all have ended."""
    before, ended = len(await run.effects()), len(run.deployment.starts)
    await converse_on(run, CHANNELS, f"{SLOW} now", TWO_TOOLS)
    await until(lambda: _have_begun(run, before), 15)
    for role in run.deployment.workers:
        run.deployment.signal(role, signal.SIGTERM)
    await until(lambda: len(run.deployment.starts) >= ended + len(run.deployment.workers), 15)
    await run.deployment.all_up()


async def _have_begun(run: Run, before: int) -> bool:
    """Tell whether every channel's slow tool runs."""
    return len(await run.effects()) >= before + len(CHANNELS)


def test_every_point_has_its_row() -> None:
    assert sorted([*ORDINARY, *SPECIAL]) == sorted(point.name for point in POINTS)
