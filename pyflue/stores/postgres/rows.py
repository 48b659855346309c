"""Rows to values and back, by position: the order is that of the column lists in ``queries/``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from pyflue.dispatches import (
    Dispatch,
    DispatchError,
    DispatchResult,
    Lease,
    OutboxDraft,
    OutboxItem,
    SessionAddress,
    WorkerRow,
    decode_input,
)
from pyflue.entries import SummaryEntry, encode_entry, kind_of_entry
from pyflue.events import encode_event, type_of
from pyflue.ids import WorkerId
from pyflue.stores.postgres.arrays import Blobs, Numbers, Texts
from pyflue.stores.postgres.pool import Row
from pyflue.stores.protocol import SessionRow, TurnWrite

encode: Final = msgspec.json.Encoder().encode

_read_result: Final = msgspec.json.Decoder(DispatchResult).decode
_read_error: Final = msgspec.json.Decoder(DispatchError).decode

_NO_TEXTS: Final = Texts()
_NO_BLOBS: Final = Blobs()
_NO_REPLIES: Final[dict[str, object]] = {
    "replies": 0,
    "reply_ids": _NO_TEXTS,
    "call_ids": _NO_TEXTS,
    "parts": Numbers(),
    "channels": _NO_TEXTS,
    "destinations": _NO_BLOBS,
    "texts": _NO_BLOBS,
    "reply_keys": _NO_TEXTS,
}


def write_params(lease: Lease, write: TurnWrite) -> dict[str, object]:
    """Return the parameters every fenced write of a turn has; the caller adds its own."""
    entries, events = write.entries, write.events
    summary = 0
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, SummaryEntry):
            summary = number
    return {
        "session": lease.session_id,
        "token": lease.token,
        "dispatch": write.dispatch_id,
        "head": write.head,
        "count": len(entries),
        "summary": summary,
        "kinds": Texts([kind_of_entry(entry) for entry in entries]),
        "bodies": Blobs([encode_entry(entry) for entry in entries]),
        "event_count": len(events),
        "types": Texts([type_of(event) for event in events]),
        "events": Blobs([encode_event(event) for event in events]),
        **(_reply_params(write.outbox) if write.outbox else _NO_REPLIES),
    }


def _reply_params(drafts: Sequence[OutboxDraft]) -> dict[str, object]:
    return {
        "replies": len(drafts),
        "reply_ids": Texts([draft.id for draft in drafts]),
        "call_ids": Texts([draft.call_id for draft in drafts]),
        "parts": Numbers([draft.part for draft in drafts]),
        "channels": Texts([draft.channel for draft in drafts]),
        "destinations": Blobs([bytes(draft.destination) for draft in drafts]),
        "texts": Blobs([draft.body.encode() for draft in drafts]),
        "reply_keys": Texts([draft.idempotency_key for draft in drafts]),
    }


def dispatch_of(row: Row) -> Dispatch:
    """Read the eighteen columns of a dispatch."""
    return Dispatch(
        row[0],
        row[1],
        row[2],
        decode_input(row[3]),
        row[4],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        row[10],
        row[11],
        row[12],
        None if row[13] is None else _read_result(row[13]),
        None if row[14] is None else _read_error(row[14]),
        row[15],
        row[16],
        row[17],
    )


def lease_of(row: Row, worker_id: WorkerId) -> Lease:
    """Read id, agent, instance, name, token, head and summary of a session just claimed."""
    return Lease(row[0], SessionAddress(row[1], row[2], row[3]), worker_id, row[4], row[5], row[6])


def outbox_item_of(row: Row) -> OutboxItem:
    """Read the eighteen columns of an outbox item."""
    return OutboxItem(
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        Raw(row[7]),
        row[8].decode(),
        row[9],
        row[10],
        row[11],
        row[12],
        row[13],
        row[14],
        row[15],
        row[16],
        row[17],
    )


def session_row_of(row: Row) -> SessionRow:
    """Read the twelve columns of a session."""
    address = SessionAddress(row[1], row[2], row[3])
    return SessionRow(row[0], address, row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11])


def worker_row_of(row: Row) -> WorkerRow:
    """Read the ten columns of a worker."""
    return WorkerRow(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[6], row[7], row[8], row[9])
