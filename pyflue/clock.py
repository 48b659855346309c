"""The only callers of the system's clocks.

Instants are aware UTC ``datetime``; durations are ``timedelta``. Wall time decides nothing that two hosts must
agree on: leases use the store's clock (see ``stores/protocol.py``). Monotonic time is for what one process
decides about itself, such as its self-fence and its timeouts.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a process gets its time from. Tests pass ``pyflue.testing.FakeClock``."""

    def now(self) -> datetime:
        """Return the current instant, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards; they keep counting while the process is stopped."""
        ...


class SystemClock:
    """The clock of this host."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
