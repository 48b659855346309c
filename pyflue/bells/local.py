"""The bell of a single process: rings reach the worker in the same event loop, no broker involved."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from pyflue.bells.listeners import Listeners
from pyflue.ids import SessionId


class LocalBell:
    """A bell for front and worker in one event loop. ``wake`` may be set later, when the worker exists."""

    def __init__(self, wake: Callable[[SessionId], None] | None = None) -> None:
        self.wake = wake
        self._listeners = Listeners()

    def ring(self, session_id: SessionId) -> None:
        if self.wake is not None:
            self.wake(session_id)

    def announce(self, stream: str) -> None:
        self._listeners.tell(stream)

    @asynccontextmanager
    async def listen(self, stream: str) -> AsyncGenerator[AsyncIterator[None]]:
        with self._listeners.listen(stream) as growths:
            yield growths

    async def open(self) -> None:
        return

    async def close(self) -> None:
        self.wake = None
