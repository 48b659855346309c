"""Wake-ups from Redis: heard at once, handed to the worker, and never able to hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator

import pytest
from pyflue_workers.process import THREADS, hear_wake_ups
from redis.asyncio import Redis

from pyflue.bells.redis import WAKE_QUEUE, RedisBell
from pyflue.clock import SystemClock
from pyflue.config import BrokerSettings
from pyflue.ids import SessionId, session_id
from tests.services import OwnRedis, free_port
from tests.waiting import until


def session(n: int) -> SessionId:
    return session_id("triage", f"thread-{n}")


class Accepting:
    """What stands for the worker: remembers what it was asked to take; ``slots`` can be closed."""

    def __init__(self) -> None:
        self.accepted: list[SessionId] = []
        self.at: list[float] = []
        self.waiting = 0
        self.slots = asyncio.Event()
        self.slots.set()
        self.failing = False

    async def accept(self, session_id: SessionId) -> None:
        self.waiting += 1
        try:
            await self.slots.wait()
        finally:
            self.waiting -= 1
        if self.failing:
            raise RuntimeError("the worker failed")
        self.accepted.append(session_id)
        self.at.append(time.monotonic())


@pytest.fixture
def worker() -> Accepting:
    return Accepting()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def bell(redis_url: str, redis_namespace: str) -> AsyncIterator[RedisBell]:
    bell = RedisBell(redis_url, redis_namespace)
    yield bell
    await bell.close()


@pytest.fixture
def broker(redis_url: str, redis_namespace: str) -> BrokerSettings:
    return BrokerSettings(redis_url, redis_namespace)


async def test_an_idle_worker_hears_a_ring_within_milliseconds(
    worker: Accepting, bell: RedisBell, broker: BrokerSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    latencies: list[float] = []
    async with hear_wake_ups(broker, worker, SystemClock()):
        bell.ring(session(0))
        await until(lambda: worker.accepted)
        for n in range(1, 41):
            await asyncio.sleep(0.03)  # idle in between: that is what is measured
            rung = time.monotonic()
            bell.ring(session(n))
            await until(lambda n=n: len(worker.accepted) == n + 1)
            latencies.append((worker.at[-1] - rung) * 1000)

    latencies.sort()
    with capsys.disabled():
        print(f"\nring to accept, idle: p50 {statistics.median(latencies):.1f} ms, p90 {latencies[35]:.1f} ms")
    assert statistics.median(latencies) < 50, latencies  # polling would take 370 ms


async def test_a_thousand_wake_ups_pass_through_a_few_threads_and_leave_nothing_behind(
    worker: Accepting, bell: RedisBell, broker: BrokerSettings, client: Redis
) -> None:
    async with hear_wake_ups(broker, worker, SystemClock()):
        for n in range(1_000):
            bell.ring(session(n))
        await until(lambda: len(worker.accepted) == 1_000, 30)
        await until(lambda: _is_empty(client, broker.namespace))

    assert set(worker.accepted) == {session(n) for n in range(1_000)}


async def test_while_no_slot_is_free_wake_ups_stay_in_redis_for_others(
    worker: Accepting, bell: RedisBell, broker: BrokerSettings, client: Redis
) -> None:
    worker.slots.clear()
    async with hear_wake_ups(broker, worker, SystemClock()):
        for n in range(20):
            bell.ring(session(n))
        await until(lambda: worker.waiting == THREADS)
        await until(lambda: _length_is(client, broker.namespace, 20 - THREADS))

        worker.slots.set()
        await until(lambda: len(worker.accepted) == 20)


async def test_a_stopping_worker_gives_waiting_wake_ups_back(
    worker: Accepting, bell: RedisBell, broker: BrokerSettings, client: Redis
) -> None:
    worker.slots.clear()
    async with hear_wake_ups(broker, worker, SystemClock()):
        for n in range(20):
            bell.ring(session(n))
        await until(lambda: worker.waiting == THREADS)

    other = Accepting()
    async with hear_wake_ups(broker, other, SystemClock()):
        await until(lambda: len(other.accepted) == 20)

    assert worker.accepted == []
    assert set(other.accepted) == {session(n) for n in range(20)}


@pytest.mark.parametrize(
    "poison",
    [
        b"\xff\xfe",
        b"",
        b"[]",
        b'{"queue_name":"wake"}',
        b'{"queue_name":"elsewhere","actor_name":"wake","args":[],"kwargs":{},"options":{"redis_message_id":"poison"}}',
        b'{"queue_name":"wake","actor_name":"wake","args":[],"kwargs":{},"options":{}}',
        b'{"queue_name":"wake","actor_name":"other","args":[],"kwargs":{},"options":{"redis_message_id":"poison"}}',
        b'{"queue_name":"wake","actor_name":"wake","args":[1,2],"kwargs":{},"options":{"redis_message_id":"poison"}}',
        b'{"queue_name":"wake","actor_name":"wake","args":["dsp_1"],"kwargs":{},"options":{"redis_message_id":"poison"}}',
        None,
    ],
)
async def test_a_message_that_is_no_wake_up_holds_up_nobody(
    worker: Accepting, bell: RedisBell, broker: BrokerSettings, client: Redis, poison: bytes | None
) -> None:
    queue = f"{broker.namespace}:{WAKE_QUEUE}"
    if poison is not None:
        await client.hset(f"{queue}.msgs", "poison", poison)  # type: ignore[misc, arg-type]
    await client.rpush(queue, "poison")  # type: ignore[misc]
    for n in range(10):
        bell.ring(session(n))
    await until(lambda: _length_is(client, broker.namespace, 11))

    async with hear_wake_ups(broker, worker, SystemClock()):
        await until(lambda: len(worker.accepted) == 10)
        await until(lambda: _is_empty(client, broker.namespace))


async def test_a_failure_of_the_worker_neither_repeats_the_wake_up_nor_ends_the_thread(
    worker: Accepting, bell: RedisBell, broker: BrokerSettings, client: Redis
) -> None:
    worker.failing = True
    async with hear_wake_ups(broker, worker, SystemClock()):
        for n in range(THREADS * 3):
            bell.ring(session(n))
        await until(lambda: client.llen(f"{broker.namespace}:{WAKE_QUEUE}"))
        await until(lambda: _is_empty(client, broker.namespace))
        worker.failing = False

        bell.ring(session(99))
        await until(lambda: worker.accepted == [session(99)])


async def test_without_a_broker_there_is_nothing_to_hear(worker: Accepting) -> None:
    async with hear_wake_ups(BrokerSettings(), worker, SystemClock()):
        await asyncio.sleep(0)

    assert worker.accepted == []


async def test_a_broker_that_is_absent_neither_stops_the_start_nor_the_end(worker: Accepting) -> None:
    broker = BrokerSettings(f"redis://127.0.0.1:{free_port()}/0", "test")

    async with asyncio.timeout(8), hear_wake_ups(broker, worker, SystemClock()):
        await asyncio.sleep(0.1)


async def test_wake_ups_are_heard_again_after_redis_was_killed_with_all_it_held(worker: Accepting) -> None:
    with OwnRedis() as server:
        broker = BrokerSettings(server.url, "test")
        bell = RedisBell(server.url, "test")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(bell.close)
            await stack.enter_async_context(hear_wake_ups(broker, worker, SystemClock()))
            bell.ring(session(1))
            await until(lambda: worker.accepted == [session(1)])

            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

            def rings() -> bool:
                bell.ring(session(2))
                return session(2) in worker.accepted

            began = time.monotonic()
            await until(rings)
            assert time.monotonic() - began < 3


async def test_redis_may_come_after_the_worker(worker: Accepting) -> None:
    with OwnRedis() as server:
        server.kill()
        bell = RedisBell(server.url, "test")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(bell.close)
            await stack.enter_async_context(hear_wake_ups(BrokerSettings(server.url, "test"), worker, SystemClock()))
            await asyncio.to_thread(server.start)

            def rings() -> bool:
                bell.ring(session(2))
                return session(2) in worker.accepted

            await until(rings)


async def test_what_a_killed_worker_had_fetched_comes_back(
    worker: Accepting, bell: RedisBell, broker: BrokerSettings, client: Redis
) -> None:
    queue = f"{broker.namespace}:{WAKE_QUEUE}"
    bell.ring(session(7))
    await until(lambda: _length_is(client, broker.namespace, 1))
    message_id = await client.lpop(queue)  # type: ignore[misc]
    await client.sadd(f"{broker.namespace}:__acks__.killed.{WAKE_QUEUE}", message_id)  # type: ignore[misc]
    await client.zadd(f"{broker.namespace}:__heartbeats__", {"killed": (time.time() - 16) * 1000})

    async with hear_wake_ups(broker, worker, SystemClock()):
        await until(lambda: worker.accepted == [session(7)])


async def _length_is(client: Redis, namespace: str, length: int) -> bool:
    return await client.llen(f"{namespace}:{WAKE_QUEUE}") == length  # type: ignore[misc]


async def _is_empty(client: Redis, namespace: str) -> bool:
    """Nothing queued, nothing stored, nothing fetched and not acknowledged."""
    queue = f"{namespace}:{WAKE_QUEUE}"
    if await client.llen(queue) or await client.hlen(f"{queue}.msgs"):  # type: ignore[misc]
        return False
    return not [key async for key in client.scan_iter(match=f"{namespace}:__acks__*{WAKE_QUEUE}")]
