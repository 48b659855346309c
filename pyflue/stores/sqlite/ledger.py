"""Dispatches and who may work them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from pyflue.dispatches import Admission, Dispatch, Lease, Mailbox, QueueLimits, Receipt, Refusal
from pyflue.errors import LeaseLost
from pyflue.events import AbortRequested
from pyflue.ids import DispatchId, SessionId, WorkerId
from pyflue.stores.protocol import Settled, Settlement, TurnWrite
from pyflue.stores.sqlite.admission import admit_one
from pyflue.stores.sqlite.database import Database
from pyflue.stores.sqlite.outbox import take_reply
from pyflue.stores.sqlite.rows import dispatch_of, instant_of, lease_of, span
from pyflue.stores.sqlite.statements import Statements
from pyflue.stores.sqlite.turn import add_events, holds, pass_fence, record, refuse_change


class SQLiteLedger:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[Receipt | Refusal]:
        return await self._database.write(lambda work: [admit_one(work, admission, limits) for admission in admissions])

    async def claim(self, session_id: SessionId, worker_id: WorkerId, agents: frozenset[str]) -> Lease | None:
        names = _json_names(agents)
        return await self._database.write(lambda work: _claim(work, session_id, worker_id, names))

    async def claim_due(self, worker_id: WorkerId, agents: frozenset[str], limit: int) -> list[Lease]:
        names = _json_names(agents)
        due = await self._database.read(
            lambda work: work.all("ledger_claim_due", now=work.now, agents=names, worker=worker_id, limit=limit)
        )
        if not due:  # the usual case of a scan each second, which so never asks for the write lock
            return []

        def claim_each(work: Statements) -> list[Lease]:
            claims = (_claim(work, row[0], worker_id, names) for row in due)
            return [lease for lease in claims if lease is not None]

        return await self._database.write(claim_each)

    async def mailbox(self, lease: Lease) -> Mailbox:
        return await self._database.read(lambda work: _mailbox(work, lease))

    async def begin(self, lease: Lease, write: TurnWrite, budget: timedelta) -> Dispatch:
        return await self._database.write(lambda work: _begin(work, lease, write, span(budget)))

    async def park(self, lease: Lease, write: TurnWrite, delay: timedelta, *, refund: bool) -> None:
        def park(work: Statements) -> None:
            fenced = pass_fence(work, lease, write)
            available = work.now + span(delay)
            if not work.one("ledger_park", dispatch=write.dispatch_id, available=available, refund=int(refund)):
                raise refuse_change(write, fenced)
            record(work, lease, write, fenced)

        await self._database.write(park)

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled:
        return await self._database.write(lambda work: _settle(work, lease, settlement))

    async def release(self, lease: Lease, seen: int) -> bool:
        return await self._database.write(lambda work: _release(work, lease, seen))

    async def request_abort(self, dispatch_id: DispatchId) -> Dispatch | None:
        return await self._database.write(lambda work: _request_abort(work, dispatch_id))


def _json_names(agents: frozenset[str]) -> str:
    return msgspec.json.encode(sorted(agents)).decode()


def _claim(work: Statements, session_id: SessionId, worker_id: WorkerId, agents: str) -> Lease | None:
    row = work.one("ledger_claim", session=session_id, worker=worker_id, agents=agents, now=work.now)
    return lease_of(row, worker_id) if row else None


def _mailbox(work: Statements, lease: Lease) -> Mailbox:
    row = work.one("ledger_mailbox", session=lease.session_id, token=lease.token)
    if row is None:
        raise LeaseLost
    head = None if row[2] is None else dispatch_of(row[2:])
    return Mailbox(seen=row[0], now=instant_of(work.now), head=head, unsettled=row[1])


def _begin(work: Statements, lease: Lease, write: TurnWrite, budget: int) -> Dispatch:
    fenced = pass_fence(work, lease, write)
    begun = work.one(
        "ledger_begin",
        dispatch=write.dispatch_id,
        session=lease.session_id,
        now=work.now,
        deadline=work.now + budget,
    )
    if begun is None:
        raise refuse_change(write, fenced)
    record(work, lease, write, fenced)
    return dispatch_of(work.all("views_dispatch", dispatch=write.dispatch_id)[0])


def _settle(work: Statements, lease: Lease, settlement: Settlement) -> Settled:
    write = settlement.write
    fenced = pass_fence(work, lease, write)
    settled = work.one(
        "ledger_settle",
        dispatch=write.dispatch_id,
        outcome=settlement.outcome,
        now=work.now,
        result=None if settlement.result is None else msgspec.json.encode(settlement.result),
        error=None if settlement.error is None else msgspec.json.encode(settlement.error),
    )
    if settled is None:
        raise refuse_change(write, fenced)
    released = work.all("ledger_settle.session", session=lease.session_id, seen=settlement.release_if_seen)[0][0]
    new_replies = record(work, lease, write, fenced)
    reply = None
    if settlement.keep_first_reply and new_replies:
        earlier = work.one("ledger_settle.earlier_reply", session=lease.session_id, outbox_head=fenced.outbox_head)
        reply = None if earlier else take_reply(work, lease.session_id, lease.worker_id)
    return Settled(head=fenced.head, released=bool(released), reply=reply)


def _release(work: Statements, lease: Lease, seen: int) -> bool:
    if work.one("ledger_release", session=lease.session_id, token=lease.token, seen=seen):
        return True
    if not holds(work, lease):
        raise LeaseLost
    return False


def _request_abort(work: Statements, dispatch_id: DispatchId) -> Dispatch | None:
    first = work.one("ledger_request_abort.first", dispatch=dispatch_id)
    session = work.one("ledger_request_abort", dispatch=dispatch_id, now=work.now)
    if session is not None:
        work.run("ledger_request_abort.session", session=session[0], now=work.now)
        if first is not None and first[0]:
            add_events(work, dispatch_id, [AbortRequested()])
    row = work.one("views_dispatch", dispatch=dispatch_id)
    return dispatch_of(row) if row else None
