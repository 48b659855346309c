"""The readers in this process that wait for a stream to grow; both bells keep theirs here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager
from typing import Final

LISTEN_SECONDS: Final = 1.0  # a listener looks at least this often, as every bell promises


class Listeners:
    """Who waits for which stream. Telling a stream nobody waits for costs one look-up."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @property
    def streams(self) -> list[str]:
        return list(self._waiting)

    def count(self, stream: str) -> int:
        return len(self._waiting.get(stream, ()))

    def tell(self, stream: str) -> None:
        for grown in self._waiting.get(stream, ()):
            grown.set()

    @contextmanager
    def listen(self, stream: str) -> Generator[AsyncIterator[None]]:
        """Count the caller as a reader of ``stream``; what is told from now on is not missed."""
        grown = asyncio.Event()
        self._waiting.setdefault(stream, set()).add(grown)
        try:
            yield _growths(grown)
        finally:
            self._waiting[stream].discard(grown)
            if not self._waiting[stream]:
                del self._waiting[stream]


async def _growths(grown: asyncio.Event) -> AsyncGenerator[None]:
    while True:
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                await grown.wait()
        except TimeoutError:
            pass
        grown.clear()
        yield
