"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A ``Clock`` for tests: time passes only through ``advance``. Starts at 2026-01-01 00:00 UTC unless told."""

    def __init__(self, start: datetime = _START) -> None:
        self._start = start
        self._elapsed = timedelta()

    def now(self) -> datetime:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed.total_seconds()

    def advance(self, by: timedelta) -> None:
        """Let ``by`` pass; a negative duration raises ``ValueError``, because monotonic time never runs back."""
        if by < timedelta():
            raise ValueError("a clock cannot be advanced by a negative duration")
        self._elapsed += by
