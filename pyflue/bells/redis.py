"""The bell on Redis: wake-ups in Dramatiq's own wire format, and pub/sub for readers of streams.

A wake-up is what Dramatiq's ``enqueue`` script writes: the message's bytes in the hash ``ns:Q.msgs`` under a
fresh id, and that id at the end of the list ``ns:Q`` (dramatiq 2.2.1, ``brokers/redis/dispatch.lua``). Writing
both ourselves lets the front ring without importing Dramatiq and without one script call per message: all
rings of one turn of the event loop leave in one round trip.

Nothing here is retried and nothing raises to the caller: a lost ring costs the second until a worker looks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from pyflue.bells.listeners import Listeners
from pyflue.clock import Clock, SystemClock
from pyflue.errors import ConfigurationError
from pyflue.ids import Ids, SessionId

WAKE_QUEUE: Final = "wake"
WAKE_ACTOR: Final = "wake"

SEND_TIMEOUT: Final = 0.25  # seconds for one batch of rings, connecting included
QUIET_AFTER_LOSS: Final = 0.25  # seconds without trying after a batch was lost, so that a dead broker costs nothing
ANNOUNCE_PAUSE: Final = 0.02  # seconds between batches of announcements alone: a tail is read by people
BACKLOG: Final = 10_000  # sessions or streams waiting to be rung; the rescue finds the rest
BATCH: Final = 1_000  # messages in one round trip; keeps Redis answering others
QUEUE_LIMIT: Final = 100_000  # wake-ups in the queue beyond which no worker is listening; more would only fill memory
SUBSCRIBER_BEAT: Final = 5.0  # seconds of silence after which the subscription is pinged; twice means it is dead
RECONNECT_PAUSE: Final = 1.0  # seconds; listeners poll meanwhile
CANCEL_AGAIN: Final = 0.05  # seconds a cancelled task has before it is cancelled once more

_Waiting = TypeVar("_Waiting")
_log: Final = logging.getLogger("pyflue.bells")
_CONNECTION_ERRORS: Final = (RedisError, OSError, TimeoutError)


class WakeUp(Struct, frozen=True):
    """One Dramatiq message. Field names and their order are Dramatiq's, so the bytes are what it would write."""

    queue_name: str
    actor_name: str
    args: tuple[str, ...]
    kwargs: Mapping[str, str]
    options: Mapping[str, str]
    message_id: str
    message_timestamp: int
    """Milliseconds since 1970."""


def encode_wake_up(session_id: SessionId, message_id: str, milliseconds: int) -> bytes:
    """Write the message that has a worker look at this mailbox. ``message_id``, also its id in Redis, must be new."""
    options = {"redis_message_id": message_id}
    return msgspec.json.encode(WakeUp(WAKE_QUEUE, WAKE_ACTOR, (session_id,), {}, options, message_id, milliseconds))


class _Pipeline(Protocol):
    """The part of redis-py's pipeline used here; its own annotations leave the types open."""

    def hset(self, name: str, *, mapping: Mapping[str, bytes]) -> object: ...
    def rpush(self, name: str, *values: str) -> object: ...
    def publish(self, channel: str, message: bytes) -> object: ...
    async def execute(self) -> list[int]: ...


class _PubSub(Protocol):
    """The part of redis-py's subscriber used here."""

    async def subscribe(self, *channels: str) -> None: ...
    async def unsubscribe(self, *channels: str) -> None: ...
    async def ping(self) -> object: ...
    async def aclose(self) -> None: ...
    async def get_message(self, ignore_subscribe_messages: bool, timeout: float) -> Mapping[str, Any] | None: ...


class _Client(Protocol):
    """The part of redis-py's client used here."""

    def pipeline(self, transaction: bool) -> _Pipeline: ...
    def pubsub(self) -> _PubSub: ...
    async def ping(self) -> object: ...
    async def aclose(self) -> None: ...


class RedisBell:
    """Rings workers on any host through Redis. ``dropped`` counts what was given up since the process started."""

    def __init__(self, url: str, namespace: str, clock: Clock | None = None) -> None:
        self.dropped = 0
        self._clock = clock or SystemClock()
        self._ids = Ids(self._clock)
        self._queue = f"{namespace}:{WAKE_QUEUE}"
        self._events = f"{namespace}:events:"
        self._redis = _client(url, SEND_TIMEOUT)
        self._subscriber = _Subscriber(_client(url, SUBSCRIBER_BEAT), self._events)
        self._rings: dict[SessionId, None] = {}
        self._announcements: dict[str, None] = {}
        self._sender: asyncio.Task[None] | None = None
        self._rung = asyncio.Event()
        self._quiet_until = 0.0
        self._closed = False

    def ring(self, session_id: SessionId) -> None:
        if len(self._rings) >= BACKLOG or not self._may_send():
            self.dropped += 1
            return
        self._rings[session_id] = None
        self._rung.set()

    def announce(self, stream: str) -> None:
        if len(self._announcements) >= BACKLOG or not self._may_send():
            self.dropped += 1
            return
        self._announcements[stream] = None

    @asynccontextmanager
    async def listen(self, stream: str) -> AsyncGenerator[AsyncIterator[None]]:
        async with self._subscriber.listen(stream) as growths:
            yield growths

    async def ping(self) -> bool:
        """Tell whether the broker answers within the time a ring has."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._redis.ping()
        except _CONNECTION_ERRORS:
            return False
        return True

    async def open(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        self._rings.clear()
        self._announcements.clear()
        await _cancelled(self._sender)
        await self._subscriber.close()
        await self._redis.aclose()

    def _may_send(self) -> bool:
        """Have the sender run in this turn of the loop; False while the bell is closed or the broker is known lost."""
        if self._closed or self._clock.monotonic() < self._quiet_until:
            return False
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all(), name="pyflue.ring")
        return True

    async def _send_all(self) -> None:
        while self._rings or self._announcements:
            self._rung.clear()
            rings = _take(self._rings)
            streams = _take(self._announcements)
            try:
                async with asyncio.timeout(SEND_TIMEOUT):
                    await self._send(rings, streams)
            except _CONNECTION_ERRORS as error:
                self._lost(len(rings) + len(streams), error)
            if streams:
                await self._pause()

    async def _pause(self) -> None:
        """Let announcements gather for a moment; a ring does not wait for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANNOUNCE_PAUSE):
                await self._rung.wait()

    async def _send(self, rings: list[SessionId], streams: list[str]) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        if rings:
            now = int(self._clock.now().timestamp() * 1000)
            messages: dict[str, bytes] = {}
            for session_id in rings:
                message_id = f"{self._ids.random_bits(128):032x}"
                messages[message_id] = encode_wake_up(session_id, message_id, now)
            pipeline.hset(self._queue + ".msgs", mapping=messages)
            pipeline.rpush(self._queue, *messages)
        for stream in streams:
            pipeline.publish(self._events + stream, b"")
        answers = await pipeline.execute()
        if rings and answers[1] > QUEUE_LIMIT:
            self._quiet_until = self._clock.monotonic() + QUIET_AFTER_LOSS

    def _lost(self, count: int, error: Exception) -> None:
        self.dropped += count + len(self._rings) + len(self._announcements)
        self._rings.clear()
        self._announcements.clear()
        self._quiet_until = self._clock.monotonic() + QUIET_AFTER_LOSS
        _warn("bell.lost", reason=type(error).__name__, dropped=self.dropped)


class _Subscriber:
    """One pub/sub connection for the process, made when somebody first listens, and made again when it is lost."""

    def __init__(self, redis: _Client, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._listeners = Listeners()
        self._pubsub: _PubSub | None = None
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def listen(self, stream: str) -> AsyncGenerator[AsyncIterator[None]]:
        with self._listeners.listen(stream) as growths:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._hear(), name="pyflue.listen")
            await self._ask("subscribe", stream)
            try:
                yield growths
            finally:
                if self._listeners.count(stream) == 1:
                    await self._ask("unsubscribe", stream)

    async def close(self) -> None:
        await _cancelled(self._task)
        await self._redis.aclose()

    async def _ask(self, verb: str, stream: str) -> None:
        """Change the subscription if there is a connection; without one, connecting subscribes to all there is."""
        if self._pubsub is None:
            return
        with suppress(*_CONNECTION_ERRORS):
            async with asyncio.timeout(SEND_TIMEOUT):
                if verb == "subscribe":
                    await self._pubsub.subscribe(self._prefix + stream)
                else:
                    await self._pubsub.unsubscribe(self._prefix + stream)

    async def _hear(self) -> None:
        while True:
            pubsub = self._redis.pubsub()
            try:
                await pubsub.subscribe(self._prefix)  # a subscriber of nothing could not be read from
                self._pubsub = pubsub  # from here on new listeners subscribe for themselves
                if streams := self._listeners.streams:
                    await pubsub.subscribe(*(self._prefix + stream for stream in streams))
                await self._read(pubsub)
            except _CONNECTION_ERRORS as error:
                _warn("bell.unsubscribed", reason=type(error).__name__)
            finally:
                self._pubsub = None
                with suppress(*_CONNECTION_ERRORS):
                    await pubsub.aclose()
            await asyncio.sleep(RECONNECT_PAUSE)

    async def _read(self, pubsub: _PubSub) -> None:
        """Tell listeners what arrives. A confirmed subscription counts as news: something may have come before it."""
        silent = False
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=False, timeout=SUBSCRIBER_BEAT)
            if message is None:
                if silent:
                    raise TimeoutError("the subscription does not answer")
                silent = True
                await pubsub.ping()
                continue
            silent = False
            if message["type"] in ("message", "subscribe") and isinstance(message["channel"], bytes):
                self._listeners.tell(message["channel"].decode().removeprefix(self._prefix))


def _client(url: str, timeout: float) -> _Client:
    """Make a client that never tries twice. Nothing connects yet.

    Raises:
        ConfigurationError: the URL is not one of Redis; it is not repeated, as it may hold a password.
    """
    untyped: Any = Redis  # redis-py leaves the parameters of from_url open
    times = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    try:
        return untyped.from_url(url, retry=Retry(NoBackoff(), 0), max_connections=4, **times)
    except ValueError:
        raise ConfigurationError(
            "The broker's URL cannot be read.",
            cause="[broker] url, or PYFLUE_REDIS_URL, is not a URL of Redis.",
            fix="Write it as redis://host:6379/0 (rediss:// with TLS).",
        ) from None


def _warn(event: str, **fields: str | int) -> None:
    """Log in the shape of ``observers.logs``, which a bell, being of another family, does not import."""
    _log.warning(event, extra={"pyflue_fields": fields})


def _take(waiting: dict[_Waiting, None]) -> list[_Waiting]:
    taken = list(waiting)[:BATCH]
    for one in taken:
        del waiting[one]
    return taken


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """End a task. One cancellation is not always enough: redis-py loses one that arrives while it is connecting."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN)
