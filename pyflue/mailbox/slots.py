"""How many mailboxes a process works at once."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A counter with a queue of those who wait for it; unlike a semaphore it can be overdrawn on purpose."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """Return how many can be taken at once; never negative."""
        return max(0, self._limit - self._taken)

    def take(self) -> bool:
        """Take one if there is one and nobody waits for it."""
        if self.free == 0 or self._waiting:
            return False
        self._taken += 1
        return True

    def overdraw(self) -> None:
        """Take one even if there is none: for a lease that is ours already and must be worked."""
        self._taken += 1

    async def wait(self) -> None:
        """Take one, waiting in line for it."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it was given to us just before we were cancelled
            elif turn in self._waiting:  # ``give_back`` may have passed over it already
                self._waiting.remove(turn)
            raise

    def give_back(self) -> None:
        """Give one back: to the first in line, if there is room for it."""
        self._taken -= 1
        while self._waiting and self.free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
