"""The write of a turn: fenced once, then entries, replies and events under the numbers the fence gave."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pyflue.dispatches import TERMINAL, Lease, OutboxDraft, Status
from pyflue.entries import Entry, SummaryEntry, encode_entry, kind_of_entry
from pyflue.errors import LeaseLost, StoreError
from pyflue.events import Event, encode_event, type_of
from pyflue.ids import DispatchId
from pyflue.stores.protocol import TurnWrite
from pyflue.stores.sqlite.statements import SqlValue, Statements


class Fenced(Struct, frozen=True):
    """What the fence found: the journal's head after this write, and the outbox's before it."""

    head: int
    outbox_head: int
    status: Status


def pass_fence(work: Statements, lease: Lease, write: TurnWrite) -> Fenced:
    """Prove the lease and reserve the write's entry numbers.

    Raises:
        LeaseLost: the token or the head is another, or the lease was given back.
        StoreError: the dispatch is not in this session's mailbox.
    """
    row = work.one(
        "journal_append.fence",
        session=lease.session_id,
        token=lease.token,
        head=write.head,
        entries=len(write.entries),
        summary_seq=_last_summary(write.head, write.entries),
        now=work.now,
    )
    if row is None:
        raise LeaseLost
    owner = work.one("journal_append.owner", dispatch=write.dispatch_id, session=lease.session_id)
    if owner is None:
        raise StoreError(
            f"Dispatch {write.dispatch_id} is not in the mailbox of session {lease.session_id}.",
            fix="Write under the lease of the session the dispatch was admitted to.",
        )
    return Fenced(row[0], row[1], owner[0])


def holds(work: Statements, lease: Lease) -> bool:
    """Tell whether the lease is current and was not given back."""
    row = work.one("journal_head", session=lease.session_id)
    return row is not None and row[1] == lease.token and bool(row[2])


def _last_summary(head: int, entries: Sequence[Entry]) -> int | None:
    numbers = [seq for seq, entry in enumerate(entries, head + 1) if isinstance(entry, SummaryEntry)]
    return numbers[-1] if numbers else None


def refuse_change(write: TurnWrite, fenced: Fenced) -> StoreError:
    """Say why a status did not change: it is settled, or another dispatch of the session is at work."""
    if fenced.status in TERMINAL:
        return StoreError(
            f"Dispatch {write.dispatch_id} is already settled ({fenced.status}).",
            cause="An outcome never changes.",
            fix="Replay the dispatch to run it again.",
        )
    return StoreError(
        f"Dispatch {write.dispatch_id} cannot start: another one of its session is at work.",
        fix="Work the lowest unsettled position of a mailbox or nothing.",
    )


def record(work: Statements, lease: Lease, write: TurnWrite, fenced: Fenced) -> int:
    """Store a fenced write's entries, replies and events; return how many replies were new."""
    _add_entries(work, lease, write)
    new_replies = _add_replies(work, lease, write, fenced.outbox_head)
    add_events(work, write.dispatch_id, write.events)
    return new_replies


def _add_entries(work: Statements, lease: Lease, write: TurnWrite) -> None:
    rows: list[dict[str, SqlValue]] = [
        {
            "session": lease.session_id,
            "seq": seq,
            "dispatch": write.dispatch_id,
            "kind": kind_of_entry(entry),
            "token": lease.token,
            "body": encode_entry(entry),
            "now": work.now,
        }
        for seq, entry in enumerate(write.entries, write.head + 1)
    ]
    if rows:
        work.run_many("journal_append.entry", rows)


def _add_replies(work: Statements, lease: Lease, write: TurnWrite, outbox_head: int) -> int:
    position = outbox_head
    for draft in write.outbox:
        if _add_reply(work, lease, write.dispatch_id, draft, position + 1):
            position += 1
    if position > outbox_head:
        work.run("journal_append.outbox_head", session=lease.session_id, outbox_head=position)
    return position - outbox_head


def _add_reply(work: Statements, lease: Lease, dispatch_id: DispatchId, draft: OutboxDraft, position: int) -> bool:
    added = work.one(
        "journal_append.reply",
        id=draft.id,
        session=lease.session_id,
        position=position,
        dispatch=dispatch_id,
        call=draft.call_id,
        part=draft.part,
        channel=draft.channel,
        destination=bytes(draft.destination),
        body=draft.body.encode(),
        idempotency_key=draft.idempotency_key,
        now=work.now,
    )
    return added is not None


def add_events(work: Statements, dispatch_id: DispatchId, events: Sequence[Event]) -> None:
    """Number events from the counter on the dispatch's row and store them in its stream."""
    if not events:
        return
    counter = work.one("journal_append.event_seq", dispatch=dispatch_id, events=len(events))
    if counter is None:
        raise StoreError(f"Dispatch {dispatch_id} is gone, so its events have no stream.")
    rows: list[dict[str, SqlValue]] = [
        {"stream": dispatch_id, "seq": seq, "type": type_of(event), "data": encode_event(event), "now": work.now}
        for seq, event in enumerate(events, counter[0] - len(events) + 1)
    ]
    work.run_many("journal_append.event", rows)
