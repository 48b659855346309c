"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], object | Awaitable[object]], seconds: float = 10, *, every: float = 0.002
) -> None:
    """Return once ``condition`` (plain or async), asked ``every`` so many seconds, gives something true.

    Fails with ``TimeoutError`` after ``seconds``.
    """
    async with asyncio.timeout(seconds):
        while True:
            outcome = condition()
            if isinstance(outcome, Awaitable):
                outcome = await outcome
            if outcome:
                return
            await asyncio.sleep(every)
