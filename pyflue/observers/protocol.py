"""What may watch the core at work. The core says what happened; observers log, count or trace it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal, Protocol

from msgspec import Struct

Subject = Literal["request", "dispatch", "turn", "delivery"]
Scalar = str | int | float | bool | None
"""What a log field or an attribute may be. Nothing that could hold a payload, a prompt or a secret."""


class Observation(Struct, frozen=True):
    """One thing that happened: ``event`` is dotted past tense (``dispatch.settled``), ``ids`` say to what.

    ``failed``: it ended in a way an operator should hear of. ``took`` is None for what has no duration.
    """

    subject: Subject
    event: str
    ids: Mapping[str, str] = {}
    fields: Mapping[str, Scalar] = {}
    took: timedelta | None = None
    failed: bool = False


class Observer(Protocol):
    """Sees observations in the order they happen, from the event loop's thread, after what they tell of is committed."""

    def observe(self, observation: Observation) -> None:
        """Take note, quickly and without blocking; what it raises is logged and otherwise ignored."""
        ...
