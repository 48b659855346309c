"""Between rows and Structs. Column orders are those of the statements in ``queries/``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Raw

from pyflue.dispatches import (
    Dispatch,
    DispatchError,
    DispatchResult,
    Lease,
    OutboxItem,
    SessionAddress,
    WorkerRow,
    decode_input,
)
from pyflue.events import StoredEvent
from pyflue.ids import WorkerId
from pyflue.stores.protocol import SessionRow, StoredLine
from pyflue.stores.sqlite.statements import Row

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_results = msgspec.json.Decoder(DispatchResult)
_errors = msgspec.json.Decoder(DispatchError)
_names = msgspec.json.Decoder(tuple[str, ...])


def micros(instant: datetime) -> int:
    """Return the instant as microseconds since 1970 UTC."""
    return (instant - _EPOCH) // _MICROSECOND


def span(duration: timedelta) -> int:
    """Return the duration in microseconds."""
    return duration // _MICROSECOND


def instant_of(value: int) -> datetime:
    """Return the aware UTC instant of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=value)


def _maybe(value: int | None) -> datetime | None:
    return None if value is None else instant_of(value)


def dispatch_of(row: Row) -> Dispatch:
    return Dispatch(
        id=row[0],
        session_id=row[1],
        position=row[2],
        input=decode_input(row[3]),
        status=row[4],
        attempts=row[5],
        accepted_at=instant_of(row[6]),
        available_at=instant_of(row[7]),
        started_at=_maybe(row[8]),
        deadline_at=_maybe(row[9]),
        expires_at=_maybe(row[10]),
        abort_requested_at=_maybe(row[11]),
        settled_at=_maybe(row[12]),
        result=None if row[13] is None else _results.decode(row[13]),
        error=None if row[14] is None else _errors.decode(row[14]),
        event_seq=row[15],
        replay_of=row[16],
        traceparent=row[17],
    )


def lease_of(row: Row, worker_id: WorkerId) -> Lease:
    return Lease(
        session_id=row[0],
        address=SessionAddress(row[1], row[2], row[3]),
        worker_id=worker_id,
        token=row[4],
        head=row[5],
        summary_seq=row[6],
    )


def line_of(row: Row) -> StoredLine:
    return StoredLine(row[0], row[1], row[2], row[3], instant_of(row[4]), row[5])


def event_of(row: Row) -> StoredEvent:
    return StoredEvent(row[0], row[1], row[2], Raw(row[3]), instant_of(row[4]))


def outbox_item_of(row: Row) -> OutboxItem:
    return OutboxItem(
        id=row[0],
        session_id=row[1],
        position=row[2],
        dispatch_id=row[3],
        call_id=row[4],
        part=row[5],
        channel=row[6],
        destination=Raw(row[7]),
        body=row[8].decode(),
        idempotency_key=row[9],
        status=row[10],
        attempts=row[11],
        available_at=instant_of(row[12]),
        created_at=instant_of(row[13]),
        lease_token=row[14],
        recovered=bool(row[15]),
        receipt=row[16],
        error=row[17],
    )


def session_of(row: Row) -> SessionRow:
    return SessionRow(
        id=row[0],
        address=SessionAddress(row[1], row[2], row[3]),
        head=row[4],
        mailbox_head=row[5],
        unsettled=row[6],
        created_at=instant_of(row[7]),
        updated_at=instant_of(row[8]),
        due_at=_maybe(row[9]),
        lease_owner=row[10],
        lease_token=row[11],
    )


def worker_of(row: Row) -> WorkerRow:
    return WorkerRow(
        id=row[0],
        host=row[1],
        pid=row[2],
        status=row[3],
        agents=_names.decode(row[4]),
        started_at=instant_of(row[5]),
        heartbeat_at=instant_of(row[6]),
        expires_at=instant_of(row[7]),
        liveness_key=row[8],
        sessions=row[9],
    )
