"""Working one mailbox: the lowest unsettled dispatch, again and again, until nothing is due."""

from __future__ import annotations

from functools import partial

from pyflue.dispatches import Dispatch, Lease, Mailbox
from pyflue.errors import HandBack, LeaseLost, UnknownEntryKindError
from pyflue.mailbox.attempt import attempt, newer_entry
from pyflue.mailbox.settle import conclude, hand_back, park
from pyflue.mailbox.workplace import Workplace
from pyflue.observers.logs import bind, log
from pyflue.session.backoff import pause_before_retry
from pyflue.session.journal import SessionJournal
from pyflue.session.liveness import patiently
from pyflue.session.turn import Parked


async def drain(place: Workplace, lease: Lease, until: int | None = None) -> None:
    """Work a leased mailbox until it is empty, its head is not due, or position ``until`` is settled.

    Then the lease goes back, and only if nothing arrived since the mailbox was last read. A lease lost midway ends
    the call quietly; what was appended under it stays.
    """
    with bind(session_id=lease.session_id):
        try:
            await _drain(place, lease, until)
        except LeaseLost:
            place.doubtful = True  # it may be ours still: a write of ours that landed after we had given up on it
            log("lease.lost", worker_id=place.worker_id)
        except Exception as error:  # noqa: BLE001 - the actor: the lease is disowned, and the work found again
            place.doubtful = True
            log("drain.crashed", level="error", worker_id=place.worker_id, error=type(error).__name__, exc_info=error)


async def _drain(place: Workplace, lease: Lease, until: int | None) -> None:
    journal = SessionJournal(place.store, lease, place.liveness)
    loaded = leaving = False
    while True:
        mailbox = await patiently(place.liveness, partial(place.store.ledger.mailbox, lease))
        head = _due(mailbox)
        if head is None or leaving or place.draining or _is_done(mailbox, until):
            if await patiently(place.liveness, partial(place.store.ledger.release, lease, mailbox.seen)):
                return
            continue
        loaded = loaded or await _load(place, journal, head)
        leaving = not loaded
        if loaded and await _work_one(place, journal, mailbox, head):
            return


def _due(mailbox: Mailbox) -> Dispatch | None:
    """Return the head if it may be worked now: a parked or waiting head blocks what is behind it."""
    head = mailbox.head
    if head is None or head.abort_requested_at is not None:
        return head
    return None if head.status == "waiting" or head.available_at > mailbox.now else head


def _is_done(mailbox: Mailbox, until: int | None) -> bool:
    """Tell whether the position this call was made for is settled."""
    return until is not None and mailbox.head is not None and mailbox.head.position > until


async def _load(place: Workplace, journal: SessionJournal, head: Dispatch) -> bool:
    """Read the journal; a session written by a newer release is left to workers of that release."""
    try:
        await patiently(place.liveness, journal.load)
    except UnknownEntryKindError as error:
        await park(place, journal, head, newer_entry(error))
        return False
    return True


async def _work_one(place: Workplace, journal: SessionJournal, mailbox: Mailbox, dispatch: Dispatch) -> bool:
    """Take one dispatch to a verdict and write it; return whether the lease went back with it."""
    with bind(dispatch_id=dispatch.id):
        try:
            verdict = await attempt(place, journal, mailbox, dispatch)
            return await conclude(place, journal, mailbox, dispatch, verdict)
        except HandBack:
            await hand_back(place, journal, dispatch)
            return False
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - the actor: a bug of ours must not strand the mailbox
            await park(place, journal, dispatch, _unexpected(place, dispatch, error))
            return False


def _unexpected(place: Workplace, dispatch: Dispatch, error: Exception) -> Parked:
    """Treat a bug of ours as a failed attempt: tried again, and failed for good when the attempts are used up."""
    log("dispatch.crashed", level="error", dispatch_id=dispatch.id, error=type(error).__name__, exc_info=error)
    delay = pause_before_retry(dispatch.id, dispatch.attempts + 1, place.settings.retry)
    return Parked("internal", delay, refund=False, message=f"{type(error).__name__} inside the runtime; see the log.")
