"""How long to wait before trying again: doubling, capped, with a jitter that is the same on every host."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from pyflue.config import RetrySettings


def doubled(name: str, attempt: int, first: float, longest: float) -> timedelta:
    """Return the pause after ``attempt`` (counted from 1) failed tries: 75 to 100 % of first x 2^(attempt - 1) seconds.

    The jitter is drawn from ``name``, so that things that failed together do not come back together.
    """
    digest = hashlib.blake2b(f"{name}/{attempt}".encode(), digest_size=2).digest()
    share = 0.75 + 0.25 * int.from_bytes(digest, "big") / 65_535
    return timedelta(seconds=min(longest, first * 2 ** min(max(attempt, 1) - 1, 30)) * share)


def pause_before_retry(dispatch_id: str, attempt: int, settings: RetrySettings) -> timedelta:
    """Return the pause before a model call that failed for a passing reason is made again."""
    return doubled(dispatch_id, attempt, settings.first_delay, settings.longest_delay)
