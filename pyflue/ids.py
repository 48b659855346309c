"""Identifiers: prefixed by type, so that ``pyflue logs ID`` knows what it was given.

Dispatches, outbox items, workers and runs get a sortable id: 48 bits of milliseconds, then 80 random bits, in
Crockford base 32 (the ULID layout). Those of one process sort in the order they were made, also within a millisecond and
when its clock is set back. A session's id is derived from its address instead, so that a front can
admit work without a look-up (docs/decisions/0001-session-ids-are-derived.md).
"""

from __future__ import annotations

import hashlib
import os
from typing import Final, Literal, NewType

from pyflue.clock import Clock, SystemClock

SessionId = NewType("SessionId", str)
DispatchId = NewType("DispatchId", str)
OutboxId = NewType("OutboxId", str)
WorkerId = NewType("WorkerId", str)
RunId = NewType("RunId", str)

Kind = Literal["session", "dispatch", "outbox", "worker", "run"]

PREFIXES: Final[dict[str, Kind]] = {
    "ses_": "session",
    "dsp_": "dispatch",
    "out_": "outbox",
    "wrk_": "worker",
    "run_": "run",
}

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's, lower case: no i, l, o, u
_RANDOM_BITS: Final = 80
_STEP_BITS: Final = (
    64  # how far the next id of the same millisecond is at most; not to be guessed, and no soon overflow
)


def encode_base32(value: int, length: int) -> str:
    """Write ``value`` as ``length`` Crockford base 32 digits, most significant first."""
    digits = [_ALPHABET[(value >> (5 * place)) & 31] for place in range(length)]
    return "".join(reversed(digits))


class Ids:
    """Makes new ids. Tests pass one with a fake clock and a seeded source of randomness."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._last = 0

    def random_bits(self, bits: int) -> int:
        """Return ``bits`` random bits; a test overrides this to make ids repeatable."""
        return int.from_bytes(os.urandom(bits // 8), "big")

    def _sortable(self, prefix: str) -> str:
        milliseconds = int(self._clock.now().timestamp() * 1000)
        value = (milliseconds << _RANDOM_BITS) | self.random_bits(_RANDOM_BITS)
        if value <= self._last:
            value = self._last + 1 + self.random_bits(_STEP_BITS)
        self._last = value
        return prefix + encode_base32(value, 26)

    def dispatch(self) -> DispatchId:
        return DispatchId(self._sortable("dsp_"))

    def outbox(self) -> OutboxId:
        return OutboxId(self._sortable("out_"))

    def worker(self) -> WorkerId:
        return WorkerId(self._sortable("wrk_"))

    def liveness_key(self) -> int:
        """Return a random positive 63-bit number naming a worker's liveness lock."""
        return self.random_bits(64) >> 1


def session_id(agent: str, instance_id: str, name: str = "default") -> SessionId:
    """Derive a session's id from its address: the same address gives the same id on every host.

    The three parts are length-prefixed before hashing, so no two addresses share a preimage (0.2.0 joined them with
    ``:`` and replaced odd characters, which let two conversations share one history).
    """
    parts = [part.encode() for part in (agent, instance_id, name)]
    preimage = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    digest = hashlib.blake2b(preimage, digest_size=16, person=b"pyflue.session").digest()
    return SessionId("ses_" + encode_base32(int.from_bytes(digest, "big"), 26))


def kind_of(text: str) -> Kind | None:
    """Tell what an id names by its prefix; None if it is not one of ours."""
    return PREFIXES.get(text[:4]) if len(text) == 30 else None
