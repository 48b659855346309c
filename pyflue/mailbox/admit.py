"""Step 3 of the road: make what arrived durable, then say so.

Admissions that wait in this process go to the store together, in one transaction (group commit). There is no
linger: a batch leaves as soon as one of the two places in flight is free, so an idle process commits at once
and a busy one commits many at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from pyflue.bells.protocol import Bell
from pyflue.channels.protocol import InboundEvent
from pyflue.clock import Clock
from pyflue.config import ChannelSettings
from pyflue.dispatches import (
    Admission,
    DedupeKey,
    DispatchInput,
    QueueLimits,
    Receipt,
    Refusal,
    ReplyAddress,
    SessionAddress,
)
from pyflue.errors import (
    CommitUnknownError,
    IdempotencyConflictError,
    PyFlueError,
    QueueFullError,
    StoreUnavailableError,
)
from pyflue.ids import Ids
from pyflue.stores.protocol import Store

BATCHES_IN_FLIGHT: Final = 2  # one commits while the next is being sent; a third adds only lock waits
BATCH_SIZE: Final = 256
WAITING: Final = 8_192  # beyond this the store is too slow to promise an answer in time
STORE_TIMEOUT: Final = 8.0  # seconds for one admission and for one batch; platforms give up after 3 to 10
RETRY_FOR: Final = 4.0  # seconds a batch whose commit is unknown is repeated
RETRY_PAUSE: Final = 0.1  # seconds between those tries


class Admitter:
    """Admits dispatches for every caller of this process. One per process; belongs to one event loop."""

    def __init__(self, store: Store, bell: Bell, clock: Clock, ids: Ids, limits: QueueLimits) -> None:
        self._store = store
        self._bell = bell
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._waiting: deque[tuple[Admission, asyncio.Future[Receipt]]] = deque()
        self._batches: set[asyncio.Task[None]] = set()

    async def admit(self, admission: Admission) -> Receipt:
        """Return once the admission is durable, or is known to have been admitted before (``duplicate``).

        A caller that is cancelled, or is told that the store does not answer, leaves its batch alone: what was sent to
        the store may be admitted yet. The bell is rung after the commit and never waited for.

        Raises:
            IdempotencyConflictError: its key was used before with another body.
            QueueFullError: the session or the deployment holds too much unsettled work.
            StoreUnavailableError: the store did not answer; the same admission may be sent again.
            CommitUnknownError: nor is it known whether it was admitted; under the same key it is not doubled.
        """
        if len(self._waiting) >= WAITING:
            raise StoreUnavailableError(f"{WAITING} admissions are waiting for the store")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((_with_key(admission), future))
        self._start_batch()
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                return await future
        except TimeoutError as error:
            raise _no_answer() from error

    async def dispatch(
        self, address: SessionAddress, work: DispatchInput, key: DedupeKey | None = None, traceparent: str = ""
    ) -> Receipt:
        """Admit work of this process's own caller. ``key`` makes it idempotent: another body under it is a conflict.

        Raises: as ``admit``.
        """
        return await self.admit(
            Admission(
                dispatch_id=self._ids.dispatch(),
                address=address,
                input=work,
                keys=(key,) if key else (),
                body_hash=hash_of(work) if key else None,
                traceparent=traceparent,
            )
        )

    async def close(self) -> None:
        """Return when every admission already asked for is answered."""
        while self._batches:
            await asyncio.wait(self._batches)

    def _start_batch(self) -> None:
        if len(self._batches) < BATCHES_IN_FLIGHT:
            batch = asyncio.create_task(self._run_batches(), name="pyflue.admit")
            self._batches.add(batch)
            batch.add_done_callback(self._batch_ended)

    def _batch_ended(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if self._waiting and not batch.cancelled():
            self._start_batch()

    async def _run_batches(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_SIZE, len(self._waiting)))]
            batch = [(admission, future) for admission, future in batch if not future.done()]
            try:
                if batch:
                    await self._commit(batch)
            finally:
                for _, future in batch:
                    if not future.done():  # cancelled midway: the process is stopping
                        future.set_exception(StoreUnavailableError("the admission was interrupted"))

    async def _commit(self, batch: list[tuple[Admission, asyncio.Future[Receipt]]]) -> None:
        admissions = [admission for admission, _ in batch]
        try:
            answers = await self._admit_surely(admissions)
        except StoreUnavailableError as error:
            for _, future in batch:
                _fail(future, type(error)(error.detail))
            return
        except Exception as error:  # noqa: BLE001 - request door: one caller's poison must not fail the others
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            for one in batch:
                await self._commit([one])
            return
        self._ring(admissions, answers)
        for (admission, future), answer in zip(batch, answers, strict=True):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(answer, Refusal):
                future.set_exception(_refused(admission, answer))
            else:
                future.set_result(answer)

    async def _admit_surely(self, admissions: Sequence[Admission]) -> list[Receipt | Refusal]:
        """Admit, repeating while the commit is unknown: the keys make the repetition a duplicate of itself."""
        give_up = self._clock.monotonic() + RETRY_FOR
        unknown = False
        while True:
            try:
                async with asyncio.timeout(STORE_TIMEOUT):
                    answers = await self._store.ledger.admit(admissions, self._limits)
            except TimeoutError as error:
                raise _no_answer() from error
            except StoreUnavailableError as error:
                unknown = unknown or isinstance(error, CommitUnknownError)
                if not unknown:
                    raise
                if self._clock.monotonic() >= give_up:
                    raise CommitUnknownError(error.detail) from error
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return [_own(admission, answer) for admission, answer in zip(admissions, answers, strict=True)]

    def _ring(self, admissions: Sequence[Admission], answers: Sequence[Receipt | Refusal]) -> None:
        new = {
            admission.session_id: None
            for admission, answer in zip(admissions, answers, strict=True)
            if isinstance(answer, Receipt) and not answer.duplicate
        }
        for session_id in new:
            self._bell.ring(session_id)


def admission_of(
    event: InboundEvent, channel: str, settings: ChannelSettings, ids: Ids, traceparent: str = ""
) -> Admission:
    """Turn what a channel received into an admission: a signal for the channel's agent, with where to answer."""
    reply = ReplyAddress(channel, event.destination, settings.reply, settings.failure_reply)
    return Admission(
        dispatch_id=ids.dispatch(),
        address=SessionAddress(settings.agent, event.instance_id, event.session),
        input=DispatchInput(
            text=event.text,
            role="signal",
            type="message",
            attributes=dict(event.attributes),
            payload=event.payload,
            reply=None if settings.reply == "none" else reply,
        ),
        keys=event.keys,
        body_hash=event.body_hash,
        traceparent=traceparent,
    )


def hash_of(work: DispatchInput) -> bytes:
    """Return the 32 bytes by which two bodies under one caller's key are compared."""
    return hashlib.sha256(msgspec.json.encode(work, order="sorted")).digest()


def _with_key(admission: Admission) -> Admission:
    """Give an admission without keys its own id as key, so that repeating it can never double it."""
    if admission.keys:
        return admission
    return msgspec.structs.replace(admission, keys=(DedupeKey("dispatch", admission.dispatch_id),))


def _own(admission: Admission, answer: Receipt | Refusal) -> Receipt | Refusal:
    """A duplicate of our own dispatch id is this very admission, seen again after an unknown commit."""
    if isinstance(answer, Receipt) and answer.duplicate and answer.dispatch_id == admission.dispatch_id:
        return msgspec.structs.replace(answer, duplicate=False)
    return answer


def _refused(admission: Admission, refusal: Refusal) -> PyFlueError:
    match refusal.reason:
        case "conflict":
            return IdempotencyConflictError(admission.keys[0].key, refusal.dispatch_id or "")
        case "session_full":
            return QueueFullError("session", refusal.limit)
        case "deployment_full":
            return QueueFullError("deployment", refusal.limit)


def _no_answer() -> CommitUnknownError:
    return CommitUnknownError(f"no answer to an admission within {STORE_TIMEOUT:g} s")


def _fail(future: asyncio.Future[Receipt], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
