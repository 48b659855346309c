"""Taking things, and giving up what we know nothing of, must not overlap.

A claim is committed in the store a moment before its answer reaches this process. Whoever asks in that moment what
the process holds and does not know of would give a good lease away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

ALONE_WITHIN: Final = 1.0  # seconds; a claim that takes longer hangs on a store that is away


class Gate:
    """Any number may take at once; giving up happens alone."""

    def __init__(self) -> None:
        self._taking = 0
        self._changed = asyncio.Condition()
        self._closed = False

    @asynccontextmanager
    async def taking(self) -> AsyncGenerator[None]:
        """Hold the gate open for one claim, from before it is sent until what it gave is noted."""
        if self._closed:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._closed)
        self._taking += 1
        try:
            yield
        finally:
            self._taking -= 1
            if self._closed and self._taking == 0:
                await self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Wait until nobody is taking and keep it so for the block.

        Raises:
            TimeoutError: somebody was taking for longer than ``ALONE_WITHIN``.
        """
        self._closed = True
        try:
            async with asyncio.timeout(ALONE_WITHIN), self._changed:
                await self._changed.wait_for(lambda: self._taking == 0)
            yield
        finally:
            self._closed = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
