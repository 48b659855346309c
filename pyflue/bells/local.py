"""The bell of a single process: rings reach the worker in the same event loop, no broker involved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from pyflue.ids import SessionId

LISTEN_SECONDS: Final = 1.0  # a listener looks at least this often, as every bell promises


class LocalBell:
    """A bell for front and worker in one event loop. ``wake`` may be set later, when the worker exists."""

    def __init__(self, wake: Callable[[SessionId], None] | None = None) -> None:
        self.wake = wake
        self._listeners: dict[str, set[asyncio.Event]] = {}

    def ring(self, session_id: SessionId) -> None:
        if self.wake is not None:
            self.wake(session_id)

    def announce(self, stream: str) -> None:
        for grown in self._listeners.get(stream, ()):
            grown.set()

    @asynccontextmanager
    async def listen(self, stream: str) -> AsyncGenerator[AsyncIterator[None]]:
        grown = asyncio.Event()
        self._listeners.setdefault(stream, set()).add(grown)
        try:
            yield _growths(grown)
        finally:
            listeners = self._listeners[stream]
            listeners.discard(grown)
            if not listeners:
                del self._listeners[stream]

    async def open(self) -> None:
        return

    async def close(self) -> None:
        self.wake = None


async def _growths(grown: asyncio.Event) -> AsyncGenerator[None]:
    while True:
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                await grown.wait()
        except TimeoutError:
            pass
        grown.clear()
        yield
