"""The self-fence: a process that cannot prove itself alive stops writing before others may take its work.

The heartbeat renews ``expires_at`` in the store. Measured on this process's monotonic clock, a process without
a successful heartbeat for (lease - margin) cancels its turns; the same check runs right before each tool start
and each platform send, because a process that was stopped (SIGSTOP, a frozen VM) resumes in the middle of a line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pyflue.clock import Clock
from pyflue.errors import LeaseLost, StoreUnavailableError

T = TypeVar("T")
RETRY_PAUSE: Final = 0.2  # seconds between tries while the store is away


class Liveness:
    """When this process last proved itself alive. ``lease`` and ``margin`` in seconds."""

    def __init__(self, clock: Clock, lease: float, margin: float) -> None:
        self._clock = clock
        self._limit = max(lease - margin, lease / 3)
        self._proved_at = clock.monotonic()
        self._declared_dead = False

    def proved(self, asked_at: float) -> None:
        """Note a heartbeat that succeeded. ``asked_at``: monotonic seconds before it was sent, the safe side."""
        self._proved_at = asked_at
        self._declared_dead = False

    def declare_dead(self) -> None:
        """Note that the store says another process has taken our leases."""
        self._declared_dead = True

    @property
    def alive(self) -> bool:
        """Whether this process may still act under its leases."""
        return not self._declared_dead and self.age < self._limit

    @property
    def age(self) -> float:
        """How many seconds ago this process last proved itself alive."""
        return self._clock.monotonic() - self._proved_at

    @property
    def left(self) -> float:
        """How many seconds remain until the fence closes, unless a heartbeat succeeds; never negative."""
        return max(0.0, self._limit - self.age)

    def check(self) -> None:
        """Stop the caller when this process may have been taken for dead.

        Raises:
            LeaseLost: nothing may be written or sent any more.
        """
        if not self.alive:
            raise LeaseLost("no heartbeat succeeded for too long")


async def patiently(liveness: Liveness, run: Callable[[], Awaitable[T]]) -> T:
    """Repeat something harmless to repeat until the store answers.

    Raises:
        LeaseLost: the self-fence closed while waiting.
    """
    while True:
        liveness.check()
        try:
            return await run()
        except StoreUnavailableError:
            await asyncio.sleep(RETRY_PAUSE)
