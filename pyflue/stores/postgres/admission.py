"""Admission: many dispatches in one statement, each key once and for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from pyflue.clock import Clock, SystemClock
from pyflue.dispatches import Admission, DedupeKey, QueueLimits, Receipt, Refusal, encode_input
from pyflue.errors import StoreUnavailableError
from pyflue.events import DispatchAccepted, encode_event
from pyflue.stores.postgres.arrays import Blobs, Numbers, Texts
from pyflue.stores.postgres.pool import Pool, Row

_ROWS: Final = 256  # admissions a statement
_ROUNDS: Final = 10  # of looking for who won a key that vanished in between; more than one is already rare
_COUNTED_EXACTLY: Final = 10_000  # a deployment limit up to this is checked by counting, at each batch
_COUNT_FOR: Final = 1.0  # seconds a count is good for otherwise
_MICROSECOND: Final = 1_000_000

_Answer = Receipt | Refusal


class _Backlog(Struct):
    """How much unsettled work there was at ``counted_at`` (monotonic), and what we admitted since."""

    counted_at: float
    unsettled: int


class Admissions:
    """Admits batches. One per store."""

    def __init__(self, pool: Pool, clock: Clock | None) -> None:
        self._pool = pool
        self._clock = clock
        self._monotonic = (clock or SystemClock()).monotonic
        self._backlog: _Backlog | None = None

    async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[_Answer]:
        """Admit as ``Ledger.admit`` promises. Admissions that share a key go in statements of their own, in order.

        A deployment's limit above ten thousand is checked against a count up to a second old.
        """
        answers: list[_Answer] = []
        for group in _groups(admissions):
            answers.extend(await self._admit_group(group, limits))
        return answers

    async def _admit_group(self, group: Sequence[Admission], limits: QueueLimits) -> list[_Answer]:
        answers: dict[int, _Answer] = {}
        waiting = list(range(len(group)))
        for _ in range(_ROUNDS):
            asked = [group[index] for index in waiting]
            rows = await self._pool.write("ledger_admit", await self._params(asked, limits))
            duplicates: list[int] = []
            for index, row in zip(waiting, rows, strict=True):
                if row[1] == "duplicate":
                    duplicates.append(index)
                else:
                    answers[index] = self._answer(group[index], row, limits)
            if not duplicates:
                return [answers[index] for index in range(len(group))]
            first = await self._first_receipts([group[index] for index in duplicates])
            answers.update({index: found for index, found in zip(duplicates, first, strict=True) if found})
            waiting = [index for index in duplicates if index not in answers]
            if not waiting:
                return [answers[index] for index in range(len(group))]
        raise StoreUnavailableError("the keys of an admission kept changing hands")

    def _answer(self, admission: Admission, row: Row, limits: QueueLimits) -> _Answer:
        accepted_at, verdict = row
        if verdict == "session_full":
            return Refusal("session_full", limit=limits.per_session)
        if verdict == "deployment_full":
            return Refusal("deployment_full", limit=limits.per_deployment)
        if self._backlog is not None:
            self._backlog.unsettled += 1
        return Receipt(admission.dispatch_id, accepted_at)

    async def _first_receipts(self, admissions: Sequence[Admission]) -> list[_Answer | None]:
        """Read the first receipts of duplicates; None where nobody holds a key any more."""
        rows = await self._pool.read("ledger_admit.receipts", _key_params(admissions))
        found: dict[int, list[Row]] = {}
        for row in rows:
            found.setdefault(row[0], []).append(row)
        return [
            _duplicate(admission, found[number]) if number in found else None
            for number, admission in enumerate(admissions, 1)
        ]

    async def _params(self, admissions: Sequence[Admission], limits: QueueLimits) -> dict[str, object]:
        return {
            "ids": Texts([a.dispatch_id for a in admissions]),
            "sessions": Texts([a.session_id for a in admissions]),
            "agents": Texts([a.address.agent for a in admissions]),
            "instances": Texts([a.address.instance_id for a in admissions]),
            "names": Texts([a.address.name for a in admissions]),
            "inputs": Blobs([encode_input(a.input) for a in admissions]),
            "hashes": Blobs([a.body_hash or b"" for a in admissions]),
            "lifetimes": Numbers([_lifetime(a) for a in admissions]),
            "replays": Texts([a.replay_of or "" for a in admissions]),
            "traces": Texts([a.traceparent for a in admissions]),
            "key_counts": Numbers([len(set(a.keys)) for a in admissions]),
            "events": Blobs([encode_event(DispatchAccepted(a.keys[0].source if a.keys else "")) for a in admissions]),
            "backlog": await self._unsettled(limits),
            "per_session": limits.per_session,
            "per_deployment": limits.per_deployment,
            "now": self._clock.now() if self._clock else None,
            **_key_params(admissions),
        }

    async def _unsettled(self, limits: QueueLimits) -> int:
        """Return how much unsettled work there is. Counting a long backlog at each batch would cost more than the batch."""
        now = self._monotonic()
        known = self._backlog
        if known is None or limits.per_deployment <= _COUNTED_EXACTLY or now - known.counted_at > _COUNT_FOR:
            rows = await self._pool.read("ledger_admit.backlog", {"per_deployment": limits.per_deployment})
            known = self._backlog = _Backlog(now, rows[0][0])
        return known.unsettled


def _groups(admissions: Sequence[Admission]) -> list[Sequence[Admission]]:
    """Split a batch so that no two admissions of a group share a key, keeping the order of those that do."""
    if len(admissions) == 1:
        return [admissions]
    groups: list[Sequence[Admission]] = []
    group: list[Admission] = []
    used: set[DedupeKey] = set()
    for admission in admissions:
        if len(group) == _ROWS or not used.isdisjoint(admission.keys):
            groups.append(group)
            group, used = [], set()
        group.append(admission)
        used.update(admission.keys)
    return [*groups, group] if group else groups


def _key_params(admissions: Sequence[Admission]) -> dict[str, object]:
    """Return every key with the number of its admission, from 1; a key written twice in one admission counts once."""
    keys = [(number, key) for number, a in enumerate(admissions, 1) for key in dict.fromkeys(a.keys)]
    return {
        "key_ords": Numbers([number for number, _ in keys]),
        "sources": Texts([key.source for _, key in keys]),
        "keys": Texts([key.key for _, key in keys]),
    }


def _lifetime(admission: Admission) -> int:
    """Return microseconds until a queued dispatch expires, or -1 for never."""
    if admission.expires_after is None:
        return -1
    return round(admission.expires_after.total_seconds() * _MICROSECOND)


def _duplicate(admission: Admission, rows: Sequence[Row]) -> _Answer:
    for _, dispatch_id, _, body_hash in rows:
        if admission.body_hash and body_hash and bytes(body_hash) != admission.body_hash:
            return Refusal("conflict", dispatch_id)
    _, dispatch_id, admitted_at, _ = rows[0]
    return Receipt(dispatch_id, admitted_at, duplicate=True)
