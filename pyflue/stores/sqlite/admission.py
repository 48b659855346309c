"""Admitting one dispatch inside a transaction."""

from __future__ import annotations

from pyflue.dispatches import Admission, QueueLimits, Receipt, Refusal, encode_input
from pyflue.events import DispatchAccepted, encode_event, type_of
from pyflue.ids import DispatchId, SessionId
from pyflue.stores.sqlite.rows import instant_of, span
from pyflue.stores.sqlite.statements import Statements


def admit_one(work: Statements, admission: Admission, limits: QueueLimits) -> Receipt | Refusal:
    """Queue the dispatch, or say what it is a duplicate of or why it is refused; then nothing changes."""
    if (earlier := _earlier(work, admission)) is not None:
        return earlier
    session_id = admission.session_id  # derived from the address, which costs a hash: once is enough
    if (refusal := _refusal(work, session_id, limits)) is not None:
        return refusal
    _queue(work, session_id, admission)
    for key in admission.keys:
        work.run(
            "ledger_admit.key",
            source=key.source,
            key=key.key,
            dispatch=admission.dispatch_id,
            body_hash=admission.body_hash,
            now=work.now,
        )
    return Receipt(admission.dispatch_id, instant_of(work.now))


def _earlier(work: Statements, admission: Admission) -> Receipt | Refusal | None:
    receipt: Receipt | None = None
    for key in admission.keys:
        row = work.one("ledger_admit.known", source=key.source, key=key.key)
        if row is None:
            continue
        dispatch_id, body_hash, admitted_at = row
        if admission.body_hash and body_hash and body_hash != admission.body_hash:
            return Refusal("conflict", dispatch_id)
        receipt = receipt or Receipt(dispatch_id, instant_of(admitted_at), duplicate=True)
    return receipt


def _refusal(work: Statements, session_id: SessionId, limits: QueueLimits) -> Refusal | None:
    row = work.one("ledger_admit.room", session=session_id)
    in_session, in_deployment = row or (0, 0)
    if in_session >= limits.per_session:
        return Refusal("session_full", limit=limits.per_session)
    if in_deployment >= limits.per_deployment:
        return Refusal("deployment_full", limit=limits.per_deployment)
    return None


def _queue(work: Statements, session_id: SessionId, admission: Admission) -> None:
    address = admission.address
    advanced = work.one(
        "ledger_admit.session",
        session=session_id,
        agent=address.agent,
        instance=address.instance_id,
        name=address.name,
        now=work.now,
    )
    work.run(
        "ledger_admit.dispatch",
        dispatch=admission.dispatch_id,
        session=session_id,
        position=advanced[0] if advanced else None,
        input=encode_input(admission.input),
        now=work.now,
        expires=None if admission.expires_after is None else work.now + span(admission.expires_after),
        replay_of=admission.replay_of,
        traceparent=admission.traceparent,
    )
    _accepted(work, admission.dispatch_id, admission.keys[0].source if admission.keys else "")


def _accepted(work: Statements, dispatch_id: DispatchId, source: str) -> None:
    """The stream's first event; the row's counter was made 1 with the row."""
    event = DispatchAccepted(source)
    work.run(
        "journal_append.event",
        stream=dispatch_id,
        seq=1,
        type=type_of(event),
        data=encode_event(event),
        now=work.now,
    )
