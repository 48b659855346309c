"""Dramatiq's Redis broker, with a consumer that waits in Redis instead of sleeping.

The stock consumer polls with growing pauses, which starts idle work after 0.4 s at the median; ``BLMOVE`` of the
queue's head onto itself returns the moment something is pushed and changes nothing (Redis 6.2 or newer).
Producers and the stock tools see an ordinary Dramatiq queue. Wake-ups are hints, so nothing here is retried.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, Protocol, cast

import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.message import Message
from redis.backoff import NoBackoff
from redis.retry import Retry

from pyflue.clock import Clock, SystemClock
from pyflue.observers.logs import log
from pyflue_workers.middleware import middleware

HEARTBEAT_TIMEOUT_MS: Final = 15_000  # the lease time: a process silent for so long has lost its sessions too
MAINTENANCE_ALWAYS: Final = 1_000_000  # in a million commands; the stock 1,000 leaves a dead process's ids for minutes
CONNECTIONS: Final = 4  # two consumers, and room for a reconnect
ACKNOWLEDGE_EVERY: Final = 0.1  # seconds; handled wake-ups are taken out of Redis together, on the way to the next ones
ACKNOWLEDGE_AT_ONCE: Final = 100  # or when so many are waiting for that
_ACKNOWLEDGE: Final = """
for _, id in ipairs(ARGV) do
    if redis.call("srem", KEYS[1], id) > 0 then
        redis.call("hdel", KEYS[2], id)
    end
end
"""
"""Dramatiq's own way to acknowledge one message, for many in one go."""
SOCKET_TIMEOUT: Final = 5.0  # seconds; longer than one BLMOVE waits
CONNECT_TIMEOUT: Final = 2.0  # seconds


class _Commands(Protocol):
    """The broker's commands as the consumer uses them; Dramatiq makes them up by name, without types."""

    broker_id: str
    namespace: str
    client: _Redis

    def do_fetch(self, queue: str, count: int) -> list[bytes | None]: ...
    def do_nack(self, queue: str, message_id: str) -> object: ...
    def do_requeue(self, queue: str, *message_ids: str) -> object: ...


class _Redis(Protocol):
    """The part of redis-py's client the consumer uses by itself."""

    def blmove(self, first_list: str, second_list: str, timeout: float, src: str, dest: str) -> bytes | None: ...
    def smembers(self, name: str) -> set[bytes]: ...
    def hget(self, name: str, key: str) -> bytes | None: ...
    def register_script(self, script: str) -> Callable[[list[str], list[str]], object]: ...


class WakeBroker(RedisBroker):
    """The broker of one worker process. Make it after forking: its id is what Redis knows the process by."""

    def __init__(self, url: str, namespace: str) -> None:
        untyped: Any = redis.BlockingConnectionPool  # redis-py leaves the parameters of from_url open
        pool = untyped.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SOCKET_TIMEOUT,
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),  # Dramatiq starts its consumer anew by itself
        )
        base: Any = super()  # Dramatiq leaves some of its parameters without types
        base.__init__(
            client=redis.Redis(connection_pool=pool),
            namespace=namespace,
            middleware=middleware(),
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
            maintenance_chance=MAINTENANCE_ALWAYS,
        )

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return a waiting consumer for wake-ups, the stock one for the delay queue, whose polls are our heartbeat."""
        if queue_name.endswith(".DQ"):
            return DelayConsumer(super().consume(queue_name, prefetch, timeout))
        return WakeConsumer(cast(_Commands, self), queue_name, prefetch, timeout)

    def close(self) -> None:
        """Disconnect."""
        cast(redis.Redis, self.client).connection_pool.disconnect()


class DelayConsumer(Consumer):
    """The stock consumer, with a timeout reported as the lost connection it is (dramatiq issue 894)."""

    def __init__(self, stock: Consumer) -> None:
        self._stock = stock

    def __next__(self) -> MessageProxy | None:
        with _lost_connection():
            return next(self._stock)

    def ack(self, message: MessageProxy) -> None:
        with _lost_connection():
            self._stock.ack(message)

    def nack(self, message: MessageProxy) -> None:
        with _lost_connection():
            self._stock.nack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        with _lost_connection():
            self._stock.requeue(messages)


class WakeConsumer(Consumer):
    """Waits in Redis for the next wake-up, and here for a free place while all prefetched ones are in work."""

    def __init__(self, broker: _Commands, queue: str, prefetch: int, timeout: int) -> None:
        self._broker = broker
        self._clock: Clock = SystemClock()
        self._queue = queue
        self._key = f"{broker.namespace}:{queue}"
        self._fetched_key = f"{broker.namespace}:__acks__.{broker.broker_id}.{queue}"
        self._take_out = broker.client.register_script(_ACKNOWLEDGE)
        self._prefetch = prefetch
        self._timeout = timeout / 1000
        self._fetched: list[bytes | None] = []
        self._in_work: set[str] = set()
        self._handled: deque[str] = deque()
        self._taken_out_at = self._clock.monotonic()
        self._place_free = threading.Event()
        self._more = True  # the last fetch left wake-ups in the queue, as far as we know

    def __next__(self) -> MessageProxy | None:
        """Return the next wake-up, or None after about ``timeout``."""
        with _lost_connection():
            if not self._fetched:
                self._fetch()
            while self._fetched:
                data = self._fetched.pop(0)
                message = self._decoded(data)
                if message is None:
                    self._bury(data)
                    continue
                self._in_work.add(message.message_id)
                return MessageProxy(message)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Note it as handled. Dying before Redis knows only has it handled again."""
        self._handled.append(_redis_id(message))
        self._leave(message)

    def nack(self, message: MessageProxy) -> None:
        try:
            self._broker.do_nack(self._queue, _redis_id(message))
        except (redis.ConnectionError, redis.TimeoutError) as error:
            log("wake.not_acknowledged", level="debug", reason=type(error).__name__)
        finally:
            self._leave(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give wake-ups back for others. Not arriving costs nothing: they are found by rescue."""
        if ids := [_redis_id(message) for message in messages]:
            with _lost_connection():
                self._broker.do_requeue(self._queue, *ids)

    def close(self) -> None:
        self._acknowledge()
        fetched, self._fetched = self._fetched, []
        self.requeue(MessageProxy(message) for data in fetched if (message := self._decoded(data)) is not None)

    def _fetch(self) -> None:
        waited = self._clock.monotonic() - self._taken_out_at
        if waited >= ACKNOWLEDGE_EVERY or len(self._handled) >= ACKNOWLEDGE_AT_ONCE:
            self._acknowledge()
        self._place_free.clear()
        places = self._prefetch - len(self._in_work)
        if places <= 0:
            self._place_free.wait(self._timeout)
            return
        if self._more or self._broker.client.blmove(self._key, self._key, self._timeout, "LEFT", "LEFT"):
            self._fetched = list(self._broker.do_fetch(self._queue, places))
            self._more = len(self._fetched) >= places

    def _leave(self, message: MessageProxy) -> None:
        self._in_work.discard(message.message_id)
        self._place_free.set()

    def _acknowledge(self) -> None:
        """Take handled wake-ups out of Redis, once. If that fails they stay there as ours until this process ends."""
        handled = [self._handled.popleft() for _ in range(len(self._handled))]
        self._taken_out_at = self._clock.monotonic()
        if not handled:
            return
        try:
            self._take_out([self._fetched_key, self._key + ".msgs"], handled)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            log("wake.not_acknowledged", level="debug", reason=type(error).__name__)

    def _decoded(self, data: bytes | None) -> Message[object] | None:
        """Read a message; None if it is not one that can be handled and acknowledged on this queue."""
        try:
            untyped: Any = Message  # a message is generic over a result that wake-ups do not have
            message: Message[object] = untyped.decode(data or b"")
        except DecodeError:
            return None
        fields: tuple[object, ...] = (message.message_id, message.actor_name, message.options, message.kwargs)
        match fields:
            case (str(), str(), {"redis_message_id": str()}, dict()) if message.queue_name == self._queue:
                return message
            case _:
                return None

    def _bury(self, data: bytes | None) -> None:
        """Move what cannot be read to the dead letters, so that what was fetched with it goes on.

        Redis gave the bytes without their id; it is among the few ids this process has fetched and not acknowledged.
        """
        broker = self._broker
        for one in broker.client.smembers(self._fetched_key):
            message_id = one.decode(errors="replace")
            if broker.client.hget(self._key + ".msgs", message_id) == data:
                broker.do_nack(self._queue, message_id)
        log("wake.undecodable", level="error", queue=self._queue, bytes=len(data or b""))


def _redis_id(message: MessageProxy) -> str:
    return str(message.options["redis_message_id"])


@contextmanager
def _lost_connection() -> Generator[None]:
    """Report whatever redis-py calls a lost connection as Dramatiq's own error, which starts the consumer anew."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ConnectionClosed(error) from None
