"""Pauses: doubling, capped, and the same on every host."""

from __future__ import annotations

from pyflue.config import RetrySettings
from pyflue.session.backoff import doubled, pause_before_retry


def test_pauses_double_up_to_the_longest() -> None:
    for attempt, whole in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (60, 10), (5_000, 10)):
        assert 0.75 * whole <= doubled("x", attempt, 1, 10).total_seconds() <= whole


def test_every_host_draws_the_same_jitter_and_things_that_failed_together_part() -> None:
    settings = RetrySettings()

    assert pause_before_retry("a", 3, settings) == pause_before_retry("a", 3, settings)
    assert len({pause_before_retry(f"dispatch {number}", 3, settings) for number in range(50)}) > 40
