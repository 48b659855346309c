"""Chaos under load: conversations go on while servers and processes are broken, and the history is whole."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest
import redis
import redis.asyncio as aioredis

from pyflue.testing.recorded import Bounds
from tests.flow.deployment import Deployment, deployed
from tests.flow.nursery import Nursery
from tests.flow.run import Run, running
from tests.services import OwnPostgres, OwnRedis
from tests.waiting import until

THREADS = 12
MODEL_DELAY = 60  # milliseconds; so that there are always turns to disturb
LEASE = 4.0  # seconds
SETTLE = Bounds(settle_within=20.0)
FROZEN = Bounds(settle_within=20.0, doubled_replies=4, asked_again=4)
SAID = (
    "hello",
    '[tool:pay {"amount": 5}] [tool:look {"name": "stock"}]',
    '[tool:ship {"parcel": "box"}]',
    '[tool:wait {"seconds": 0.3}] [tool:pay {"amount": 1}]',
)
CHANNELS = ("standard", "github", "slack")
SEED = int(os.environ.get("TEST_CHAOS_SEED", "1"))
FAULTS = int(os.environ.get("TEST_CHAOS_FAULTS", "6"))  # strikes, of about three seconds each

pytestmark = [pytest.mark.xdist_group("flow"), pytest.mark.slow]


@dataclass
class Stage:
    """A deployment on servers of its own, which may be broken."""

    deployment: Deployment
    postgres: OwnPostgres
    redis: OwnRedis
    namespace: str

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Keep every worker from doing anything for the block, which must be shorter than a lease."""
        for role in self.deployment.workers:
            self.deployment.signal(role, signal.SIGSTOP)
        try:
            yield
        finally:
            for role in self.deployment.workers:
                self.deployment.signal(role, signal.SIGCONT)

    async def holds_wake_ups(self) -> bool:
        """Tell whether Redis holds wake-ups that no worker has taken."""
        async with aioredis.Redis.from_url(self.redis.url) as client:
            return int(await client.llen(f"{self.namespace}:wake")) > 0

    def flush(self) -> None:
        """Make Redis forget everything it holds."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()


@pytest.fixture(scope="module")
def stage(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with OwnPostgres() as postgres, OwnRedis() as broker:
        namespace = f"chaos-{secrets.token_hex(4)}"
        env = {
            "PYFLUE_DATABASE_URL": postgres.dsn,
            "PYFLUE_REDIS_URL": broker.url,
            "PYFLUE_REDIS_NAMESPACE": namespace,
        }
        with deployed(
            nursery, tmp_path_factory.mktemp("chaos"), "pool", env, lease=LEASE, model_delay=MODEL_DELAY
        ) as deployment:
            yield Stage(deployment, postgres, broker, namespace)


@asynccontextmanager
async def load(run: Run, *, copies: int = 1) -> AsyncIterator[None]:
    """Keep conversations going for the length of the block, and say a few things more after it."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(THREADS):
            group.create_task(_talk(run, CHANNELS[number % len(CHANNELS)], over, copies))
        try:
            yield
        finally:
            over.set()


async def _talk(run: Run, channel: str, over: asyncio.Event, copies: int) -> None:
    thread, chance = run.thread(channel), random.Random(channel)
    while not over.is_set():
        await run.say(channel, thread, chance.choice(SAID), copies=copies)
        await asyncio.sleep(chance.uniform(0.1, 0.5))
    for said in SAID[:2]:
        await run.say(channel, thread, said, copies=copies)


async def moment(seconds: float = 0.5) -> None:
    """Let the load go on."""
    await asyncio.sleep(seconds)


async def restarted(run: Run, role: str, number: signal.Signals) -> int:
    """Send a signal to a process, wait until its successor works, and return how it ended."""
    before = len(run.deployment.starts)
    run.deployment.signal(role, number)
    await until(lambda: any(one == role for one, _ in run.deployment.starts[before:]), 15)
    await run.deployment.all_up()
    return next(code for one, code in run.deployment.starts[before:] if one == role)


async def judge(run: Run, bounds: Bounds = SETTLE) -> None:
    await run.until_quiet(40)
    await run.verdict(bounds)


async def test_nothing_goes_wrong_when_nothing_is_broken(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            await moment(1)
            for channel in CHANNELS:
                await run.forge(channel, run.thread(channel))
            await moment(1)

        await judge(run, Bounds(attempts=1, success=1.0))
        assert run.deployment.starts == []


async def test_every_message_may_be_delivered_three_times_at_once(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run, copies=3):
            await moment(2)

        await judge(run, Bounds(attempts=1, success=1.0))


async def test_redis_may_lose_everything_it_holds(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            for _ in range(3):
                await moment(0.3)
                with run.fault("FLUSHALL", crash=False, refusing=False), stage.held_up():
                    for channel in CHANNELS:  # in threads of their own, where nothing said later rings for them
                        await run.say(channel, run.thread(channel), "hello")
                    await until(stage.holds_wake_ups, 3)
                    await moment(0.1)  # a ring leaves after its 202
                    await asyncio.to_thread(stage.flush)

        await judge(run, Bounds(settle_within=10, attempts=1))
        assert run.deployment.starts == []


async def test_redis_may_be_restarted(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            for _ in range(2):
                await moment()
                with run.fault("Redis restart", crash=False, refusing=False):
                    await asyncio.to_thread(stage.redis.restart)
            await moment()

        await judge(run, Bounds(settle_within=10, attempts=1))
        assert run.deployment.starts == []


async def test_redis_may_be_absent_for_the_whole_run(stage: Stage) -> None:
    await asyncio.to_thread(stage.redis.stop)
    try:
        async with running(stage.deployment) as run:
            for role in stage.deployment.roles:
                await restarted(run, role, signal.SIGKILL)
            stage.deployment.starts.clear()
            async with load(run):
                await moment(1)
                with run.fault("Redis is gone", crash=False, refusing=False):
                    await moment(0)
                await moment(2)

            await judge(run, Bounds(settle_within=10, attempts=1, success=1.0))
            assert run.deployment.starts == []
    finally:
        await asyncio.to_thread(stage.redis.start)


@pytest.mark.parametrize("immediate", [False, True], ids=["fast", "immediate"])
async def test_postgres_may_be_restarted(stage: Stage, immediate: bool) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            await moment()
            with run.fault("Postgres restart"):
                await asyncio.to_thread(stage.postgres.restart, immediate=immediate)
                await moment(1)  # connections come back
            await moment()

        await judge(run)
        assert run.deployment.starts == [], "a process gave up"


async def test_fronts_and_workers_may_be_killed_again_and_again(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            for role in ("worker-1", "web", "worker-2", "worker-1", "web"):
                await moment(0.4)
                with run.fault(f"SIGKILL of {role}"):
                    assert await restarted(run, role, signal.SIGKILL) == -signal.SIGKILL
            await moment()

        await judge(run)


async def test_all_workers_may_be_killed_at_once(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            await moment()
            with run.fault("SIGKILL of all workers"):
                stage.deployment.signal("worker-2", signal.SIGKILL)
                await restarted(run, "worker-1", signal.SIGKILL)
            await moment()

        await judge(run)


async def test_a_worker_may_be_frozen_past_its_lease_and_wake_up_in_the_middle_of_a_turn(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            await moment()
            with run.fault("SIGSTOP of a worker"):
                stage.deployment.signal("worker-1", signal.SIGSTOP)
                await moment(2 * LEASE)
                stage.deployment.signal("worker-1", signal.SIGCONT)
            await moment(1)

        await judge(run, FROZEN)
        assert run.deployment.starts == [], "a process gave up"


async def test_every_worker_may_be_told_to_stop_without_spending_an_attempt(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            for role in stage.deployment.workers * 2:
                await moment(0.4)
                assert await restarted(run, role, signal.SIGTERM) == 0
            await moment()

        await judge(run, Bounds(attempts=1, success=1.0))


async def test_all_workers_may_be_told_to_stop_at_once_without_spending_an_attempt(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        async with load(run):
            await moment()
            async with asyncio.TaskGroup() as group:
                endings = [group.create_task(restarted(run, role, signal.SIGTERM)) for role in stage.deployment.workers]
            await moment()

        await judge(run, Bounds(attempts=1, success=1.0))
        assert {ending.result() for ending in endings} == {0}


async def test_a_model_call_longer_than_the_drain_time_is_asked_again_elsewhere(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        await run.script_model({"echo": True, "first_byte_ms": 30_000})
        await run.say("standard", run.thread("standard"), "hello")
        await until(run.model_is_busy, 10)

        before = len(run.deployment.starts)
        for role in stage.deployment.workers:
            stage.deployment.signal(role, signal.SIGTERM)
        await until(lambda: len(run.deployment.starts) >= before + len(stage.deployment.workers), 15)

        assert {code for _, code in run.deployment.starts} == {0}
        await judge(run, Bounds(attempts=1, success=1.0))


async def test_the_embedded_deployment_may_be_killed_again_and_again(embedded: Deployment) -> None:
    async with running(embedded) as run:
        async with load(run):
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
                await moment()
                with run.fault(f"{number.name} of the one process"):
                    await restarted(run, "dev", number)
            await moment()

        await judge(run)


class Nemesis:
    """Breaks things, in an order that a seed decides."""

    def __init__(self, stage: Stage, run: Run, seed: int) -> None:
        self._stage = stage
        self._run = run
        self._chance = random.Random(seed)
        self._ways: tuple[Callable[[], Awaitable[None]], ...] = (
            self.kill,
            self.kill,
            self.terminate,
            self.freeze,
            self.restart_postgres,
            self.restart_redis,
            self.spoil_the_model,
            self.spoil_a_platform,
        )

    async def strike(self) -> None:
        """Break two things at once and wait until both are mended."""
        ways = self._chance.sample(self._ways, 2)
        async with asyncio.TaskGroup() as group:
            for way in ways:
                group.create_task(self._broken(way))
        await self._run.deployment.all_up()

    async def _broken(self, way: Callable[[], Awaitable[None]]) -> None:
        with self._run.fault(way.__name__):
            await way()

    async def kill(self) -> None:
        await restarted(self._run, self._chance.choice(self._stage.deployment.roles), signal.SIGKILL)

    async def terminate(self) -> None:
        role = self._chance.choice(self._stage.deployment.workers)
        self._stage.deployment.signal(role, signal.SIGTERM)

    async def freeze(self) -> None:
        role = self._chance.choice(self._stage.deployment.workers)
        self._stage.deployment.signal(role, signal.SIGSTOP)
        await moment(self._chance.uniform(0.1, 1.5 * LEASE))
        self._stage.deployment.signal(role, signal.SIGCONT)

    async def restart_postgres(self) -> None:
        immediate = self._chance.random() < 0.5
        await asyncio.to_thread(self._stage.postgres.stop, immediate=immediate)
        await moment(self._chance.uniform(0, 1))
        await asyncio.to_thread(self._stage.postgres.start)
        await moment(1)

    async def restart_redis(self) -> None:
        await asyncio.to_thread(self._stage.redis.restart)

    async def spoil_the_model(self) -> None:
        spoilt = (
            {"status": 500},
            {"status": 529},
            {"cut": "hangup", "echo": True},
            {"cut": "overloaded", "echo": True},
        )
        await self._run.script_model(*self._chance.choices(spoilt, k=4))

    async def spoil_a_platform(self) -> None:
        for channel in CHANNELS:
            when, how = self._chance.choice(
                (("before", "status"), ("before", "drop"), ("during", "drop"), ("after", "status"), ("after", "drop"))
            )
            await self._run.fail_platform({"platform": channel, "when": when, "how": how, "status": 503})


async def test_everything_may_go_wrong_two_things_at_a_time(stage: Stage) -> None:
    async with running(stage.deployment) as run:
        nemesis = Nemesis(stage, run, SEED)
        async with load(run):
            for _ in range(FAULTS):
                await moment(0.3)
                await nemesis.strike()
            await moment()

        await judge(run, FROZEN)
