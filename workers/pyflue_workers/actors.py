"""Step 5 of the road: a wake-up comes out of the queue, and the worker is asked to take the mailbox.

The actor runs in one of Dramatiq's threads and waits only until the worker has a free slot and has begun; the
turns run on the process's event loop. A wake-up is acknowledged then: from there on the lease counts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any

import dramatiq
from dramatiq import Broker

from pyflue.bells.redis import WAKE_ACTOR, WAKE_QUEUE
from pyflue.ids import SessionId, kind_of
from pyflue.observers.logs import log

Accept = Callable[[SessionId], Coroutine[Any, Any, None]]
"""``Worker.accept``: waits for a free slot and returns once the mailbox is being worked."""


class Handover:
    """Hands wake-ups from Dramatiq's threads to the event loop; after ``close`` it hands them back instead."""

    def __init__(self, accept: Accept, loop: asyncio.AbstractEventLoop, return_to_queue: Callable[[str], None]) -> None:
        self._accept = accept
        self._loop = loop
        self._return_to_queue = return_to_queue
        self._lock = threading.Lock()
        self._waiting: set[Future[None]] = set()
        self._closed = False

    def wake(self, session_id: str) -> None:
        """Have the worker take this mailbox. Safe to call twice for one: somebody else's lease ends it quietly."""
        if kind_of(session_id) != "session":
            log("wake.not_a_session", level="error")
            return
        waiting = self._hand_over(SessionId(session_id))
        if waiting is None:
            self._return_to_queue(session_id)
            return
        try:
            waiting.result()
        except CancelledError:
            self._return_to_queue(session_id)
        except Exception as error:  # noqa: BLE001 - the actor's door: rescue finds the mailbox again
            log("wake.failed", level="error", exc_info=error, session_id=session_id)
        finally:
            with self._lock:
                self._waiting.discard(waiting)

    def close(self) -> None:
        """Stop handing over: those that wait for a slot go back to the queue, for another process."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    def _hand_over(self, session_id: SessionId) -> Future[None] | None:
        with self._lock:
            if self._closed:
                return None
            future = asyncio.run_coroutine_threadsafe(self._accept(session_id), self._loop)
            self._waiting.add(future)
            return future


def declare_wake(broker: Broker, accept: Accept, loop: asyncio.AbstractEventLoop) -> Handover:
    """Declare the ``wake`` actor on a broker and return what it hands over to."""

    def return_to_queue(session_id: str) -> None:
        untyped: Any = broker  # Dramatiq's messages are generic over a result we have not
        untyped.enqueue(actor.message(session_id))

    handover = Handover(accept, loop, return_to_queue)
    actor = dramatiq.actor(actor_name=WAKE_ACTOR, queue_name=WAKE_QUEUE, broker=broker)(handover.wake)
    return handover
