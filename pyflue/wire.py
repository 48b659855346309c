"""The JSON bodies that cross HTTP, each written once; server and client share them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from pyflue.dispatches import Receipt


class AcceptedReceipt(Struct, frozen=True):
    """Proof of admission. ``duplicate``: this was accepted before, and these are the first id and time."""

    dispatch_id: str
    accepted_at: datetime
    duplicate: bool


class Accepted(AcceptedReceipt, frozen=True, kw_only=True):
    """The body of a ``202``."""

    status: Literal["accepted"] = "accepted"


class AcceptedMany(Struct, frozen=True, kw_only=True):
    """The body of a ``202`` when one request carried several events; receipts in their order."""

    receipts: tuple[AcceptedReceipt, ...]
    status: Literal["accepted"] = "accepted"


class Problem(Struct, frozen=True, omit_defaults=True):
    """An error as ``application/problem+json`` (RFC 9457).

    ``code`` never changes between releases and is what programs compare. ``reference``, when there is one, finds the
    same request in the server's log.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    reference: str = ""


class Health(Struct, frozen=True, omit_defaults=True):
    """The body of ``/health/live`` and ``/health/ready``. ``broker`` is absent where there is none."""

    status: Literal["live", "ready", "degraded", "unavailable", "draining"]
    store: Literal["", "ready", "unavailable"] = ""
    broker: Literal["", "ready", "unavailable"] = ""


def accepted(receipts: list[Receipt]) -> Accepted | AcceptedMany:
    """Make the body that answers an admission; ``receipts`` has at least one."""
    if len(receipts) == 1:
        receipt = receipts[0]
        return Accepted(receipt.dispatch_id, receipt.accepted_at, receipt.duplicate)
    return AcceptedMany(
        receipts=tuple(AcceptedReceipt(one.dispatch_id, one.accepted_at, one.duplicate) for one in receipts)
    )
