"""What every worker does every second: judge who is dead, free their work, take what is due.

Recovery is the same door as first delivery. With the broker gone, this alone keeps everything moving.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from pyflue.dispatches import Lease, OutboxItem
from pyflue.errors import LeaseLost, UnknownEntryKindError
from pyflue.mailbox.attempt import judge
from pyflue.mailbox.settle import conclude
from pyflue.mailbox.workplace import Workplace
from pyflue.observers.logs import bind, log
from pyflue.session.journal import SessionJournal
from pyflue.session.turn import Failed

FREE_BATCH: Final = 500  # sessions freed in one statement; a worker with more is freed over several
UNCLAIMABLE_BATCH: Final = 100  # settled one after the other, some milliseconds each


async def judge_the_dead(place: Workplace, seconds: float) -> None:
    """Mark workers dead that are, and free the sessions of all dead ones.

    Raises:
        TimeoutError: the store did not answer within ``seconds``, so that nothing is known that holds now.
    """
    async with asyncio.timeout(seconds):
        dead = await place.store.fleet.reap(timedelta(seconds=place.settings.worker.grace))
    for worker_id in dead:
        log("worker.dead", level="warning", worker_id=worker_id, judged_by=place.worker_id)
    while len(freed := await place.store.fleet.free(FREE_BATCH)) == FREE_BATCH:
        log("sessions.freed", count=len(freed))


async def take_due(place: Workplace, slots: int) -> list[Lease]:
    """Take as many due mailboxes as there are free slots."""
    if slots <= 0 or place.draining:
        return []
    return await place.store.ledger.claim_due(place.worker_id, place.registry.names, slots)


async def take_unsent(place: Workplace, slots: int) -> list[OutboxItem]:
    """Take unsent replies: delayed ones whose time has come, and those a dead worker was sending."""
    if slots <= 0 or place.draining:
        return []
    return await place.store.outbox.claim_due(place.worker_id, slots)


async def settle_unclaimable(place: Workplace) -> None:
    """Fail what no worker could have worked for so long that none is coming."""
    after = timedelta(seconds=place.settings.worker.agent_unavailable_after)
    for lease in await place.store.fleet.unclaimable(after, UNCLAIMABLE_BATCH, place.worker_id):
        with bind(session_id=lease.session_id):
            try:
                await _fail_all(place, lease, after)
            except LeaseLost:
                log("lease.lost", worker_id=place.worker_id)


async def _fail_all(place: Workplace, lease: Lease, after: timedelta) -> None:
    journal = SessionJournal(place.store, lease, place.liveness)
    try:
        await journal.load()
    except UnknownEntryKindError:
        journal.lines.clear()  # a newer release wrote here: settle without reading, and leave its entries alone
    agent = lease.address.agent
    minutes = after.total_seconds() / 60
    verdict = Failed("agent_unavailable", f"No live worker has had agent {agent!r} for {minutes:g} minutes.")
    while True:
        mailbox = await place.store.ledger.mailbox(lease)
        if mailbox.head is None:
            if await place.store.ledger.release(lease, mailbox.seen):
                return
            continue
        decided = judge(mailbox.head, journal.lines, place.limits_of(agent), mailbox.now)
        if await conclude(place, journal, mailbox, mailbox.head, decided or verdict):
            return
