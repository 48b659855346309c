"""What every bell promises, and what the one on Redis adds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.message import Message
from redis.asyncio import Redis

from pyflue.bells import redis as redis_bell
from pyflue.bells.local import LocalBell
from pyflue.bells.protocol import Bell
from pyflue.bells.redis import WAKE_ACTOR, WAKE_QUEUE, RedisBell, encode_wake_up
from pyflue.errors import ConfigurationError
from pyflue.ids import SessionId, session_id
from tests.services import OwnRedis, free_port
from tests.waiting import until

SESSION = session_id("triage", "thread-1")


@contextlib.asynccontextmanager
async def opened(bell: RedisBell) -> AsyncIterator[RedisBell]:
    await bell.open()
    try:
        yield bell
    finally:
        await bell.close()


@pytest.fixture
async def bell(redis_url: str, redis_namespace: str) -> AsyncIterator[RedisBell]:
    async with opened(RedisBell(redis_url, redis_namespace)) as bell:
        yield bell


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture(params=["local", "redis"])
def any_bell(request: pytest.FixtureRequest) -> Bell:
    return LocalBell() if request.param == "local" else request.getfixturevalue("bell")


async def queued(client: Redis, namespace: str) -> list[bytes]:
    return await client.lrange(f"{namespace}:{WAKE_QUEUE}", 0, -1)  # type: ignore[misc]


async def next_within(growths: AsyncIterator[None], seconds: float) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        await anext(growths)
    return time.monotonic() - began


# --- every bell


async def test_a_listener_is_told_at_once_of_its_own_stream(any_bell: Bell) -> None:
    async with any_bell.listen("dsp_1") as growths:
        await next_within(growths, 3)  # on Redis: the subscription is confirmed

        any_bell.announce("dsp_1")

        assert await next_within(growths, 3) < 0.5


async def test_a_listener_looks_every_second_even_if_nothing_is_announced(any_bell: Bell) -> None:
    async with any_bell.listen("dsp_1") as growths:
        await next_within(growths, 3)

        any_bell.announce("dsp_2")

        assert 0.5 < await next_within(growths, 3) < 2


async def test_many_listeners_of_one_stream_are_all_told(any_bell: Bell) -> None:
    async with any_bell.listen("dsp_1") as one, any_bell.listen("dsp_1") as two:
        await asyncio.gather(next_within(one, 3), next_within(two, 3))

        any_bell.announce("dsp_1")

        assert max(await asyncio.gather(next_within(one, 3), next_within(two, 3))) < 0.5


async def test_announcing_to_nobody_and_ringing_a_closed_bell_do_nothing(any_bell: Bell) -> None:
    any_bell.announce("dsp_1")
    await any_bell.close()
    await any_bell.close()

    any_bell.ring(SESSION)
    any_bell.announce("dsp_1")


async def test_a_ring_in_one_process_wakes_the_worker_directly() -> None:
    woken: list[SessionId] = []
    bell = LocalBell(woken.append)

    bell.ring(SESSION)

    assert woken == [SESSION]


# --- the one on Redis


def test_a_wake_up_has_the_bytes_dramatiq_would_write() -> None:
    theirs = Message(
        WAKE_QUEUE, WAKE_ACTOR, (SESSION,), {}, {"redis_message_id": "ab" * 16}, "ab" * 16, 1_790_000_000_123
    )

    assert encode_wake_up(SESSION, "ab" * 16, 1_790_000_000_123) == theirs.encode()


async def test_dramatiq_consumes_what_was_rung(bell: RedisBell, redis_url: str, redis_namespace: str) -> None:
    broker = RedisBroker(url=redis_url, namespace=redis_namespace, middleware=[])
    broker.declare_queue(WAKE_QUEUE)
    woken: list[str] = []
    dramatiq.actor(woken.append, actor_name=WAKE_ACTOR, queue_name=WAKE_QUEUE, broker=broker)
    sessions = [session_id("triage", f"thread-{n}") for n in range(50)]
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        for session in sessions:
            bell.ring(session)
        await until(lambda: len(woken) == 50)
        await asyncio.to_thread(broker.join, WAKE_QUEUE, timeout=5_000)
    finally:
        await asyncio.to_thread(worker.stop, 5_000)
        broker.client.close()

    assert woken == sessions


async def test_rings_of_one_moment_leave_together_and_the_same_session_once(
    bell: RedisBell, client: Redis, redis_namespace: str
) -> None:
    for _ in range(3):
        for n in range(20):
            bell.ring(session_id("triage", f"thread-{n}"))
    await until(lambda: client.llen(f"{redis_namespace}:{WAKE_QUEUE}"))

    ids = await queued(client, redis_namespace)
    messages = await client.hgetall(f"{redis_namespace}:{WAKE_QUEUE}.msgs")  # type: ignore[misc]

    assert len(ids) == len(set(ids)) == len(messages) == 20
    assert {json.loads(body)["options"]["redis_message_id"].encode() for body in messages.values()} == set(ids)


async def test_a_ring_does_not_wait_for_announcements_to_gather(
    bell: RedisBell, client: Redis, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_bell, "ANNOUNCE_PAUSE", 60.0)
    bell.announce("dsp_1")
    await asyncio.sleep(0.05)  # the sender has announced and waits for more

    bell.ring(SESSION)

    await until(lambda: queued(client, redis_namespace), 5)


async def test_ringing_costs_the_caller_no_wait_when_the_broker_is_a_black_hole() -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await asyncio.sleep(60)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(RedisBell(f"redis://127.0.0.1:{port}/0", "test")) as bell:
        began = time.monotonic()
        bell.ring(SESSION)
        assert time.monotonic() - began < 0.05

        await until(lambda: bell.dropped == 1, 2)
        assert time.monotonic() - began < 1
        assert not await bell.ping()
    server.close()


async def test_a_dead_broker_drops_rings_counts_them_and_raises_nothing() -> None:
    async with opened(RedisBell(f"redis://127.0.0.1:{free_port()}/0", "test")) as bell:
        for n in range(100):
            bell.ring(session_id("triage", f"thread-{n}"))
        await until(lambda: bell.dropped == 100)

        bell.ring(SESSION)
        bell.announce("dsp_1")

        assert bell.dropped == 102


async def test_the_backlog_is_bounded(bell: RedisBell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_bell, "BACKLOG", 5)

    for n in range(12):
        bell.ring(session_id("triage", f"thread-{n}"))

    assert bell.dropped == 7


async def test_a_queue_nobody_empties_stops_growing(
    bell: RedisBell, client: Redis, redis_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_bell, "QUEUE_LIMIT", 5)
    for n in range(10):
        bell.ring(session_id("triage", f"thread-{n}"))
    await until(lambda: client.llen(f"{redis_namespace}:{WAKE_QUEUE}"))
    await until(lambda: bell._sender is None or bell._sender.done())

    bell.ring(SESSION)

    assert bell.dropped == 1


async def test_ringing_and_listening_come_back_after_the_broker_was_lost() -> None:
    with OwnRedis() as server:
        async with opened(RedisBell(server.url, "test")) as bell, bell.listen("dsp_1") as growths:
            client = Redis.from_url(server.url)
            await next_within(growths, 3)
            await asyncio.to_thread(server.kill)
            bell.ring(SESSION)
            await until(lambda: bell.dropped > 0)
            assert await next_within(growths, 3) < 2  # polling goes on meanwhile

            await asyncio.to_thread(server.start)

            async def rings() -> bool:
                bell.ring(SESSION)
                return await client.llen(f"test:{WAKE_QUEUE}") > 0  # type: ignore[misc]

            async def hears() -> bool:
                return len(await client.pubsub_channels("test:events:dsp_1")) > 0

            await until(rings)
            await until(hears)
            await next_within(growths, 3)
            bell.announce("dsp_1")
            assert await next_within(growths, 3) < 0.9
            await client.aclose()


async def test_a_stream_nobody_reads_any_more_is_unsubscribed(
    bell: RedisBell, client: Redis, redis_namespace: str
) -> None:
    async def subscribed() -> bool:
        return len(await client.pubsub_channels(f"{redis_namespace}:events:dsp_1")) > 0

    async def unsubscribed() -> bool:
        return not await subscribed()

    async with bell.listen("dsp_1") as growths:
        await next_within(growths, 3)
        await until(subscribed)

    await until(unsubscribed)


async def test_a_bell_closed_while_it_is_still_connecting_ends(redis_url: str, redis_namespace: str) -> None:
    async with asyncio.timeout(60):
        for moment in range(200):
            async with opened(RedisBell(redis_url, redis_namespace)) as bell, bell.listen("dsp_1"):
                await asyncio.sleep(moment % 80 * 0.00005)  # another place within the handshake each time


@pytest.mark.parametrize("url", ["http://user:hidden@host/0", "redis://user:hidden@host:port/0", "hidden"])
def test_a_broker_url_that_is_none_is_a_setting_to_correct_and_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PYFLUE_REDIS_URL") as refused:
        RedisBell(url, "test")

    assert "hidden" not in str(refused.value)
