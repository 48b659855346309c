"""What a channel does: verify and read a platform's request, and send replies back.

``receive`` is pure: no I/O, the clock passed in. Order of its checks: method and media type, headers present
and well formed, signature over the raw bytes in constant time, freshness, and only then parsing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Raw, Struct

from pyflue.dispatches import DedupeKey, OutboxItem
from pyflue.errors import ChannelError


class RawRequest(Struct, frozen=True):
    """An HTTP request as it arrived. Header names are lower case; ``body`` is the raw bytes."""

    method: str
    headers: Mapping[str, str]
    body: bytes


class InboundEvent(Struct, frozen=True):
    """Something said to us on a platform, normalised.

    ``instance_id`` names the conversation (for chat, the thread), scoped by installation.
    ``keys``: every id it is known by (delivery id, message id), scoped by installation.
    ``body_hash`` is set only where the caller chose the key. ``destination`` is the channel's own JSON.
    """

    instance_id: str
    keys: tuple[DedupeKey, ...]
    text: str
    attributes: Mapping[str, str]
    destination: Raw
    occurred_at: datetime | None = None
    session: str = "default"
    body_hash: bytes | None = None
    payload: Raw | None = None


class Answer(Struct, frozen=True):
    """The HTTP answer to give without admitting anything: a handshake, or an event that is not for us.

    ``reason`` says why nothing was admitted (``handshake``, ``own_message``, ``not_addressed``, ``edited`` …).
    """

    reason: str
    status: int = 200
    body: bytes = b""
    media_type: str = "application/json"


class SendReceipt(Struct, frozen=True):
    """The platform accepted a reply. ``id`` is its id there; ``found`` when it was already there."""

    id: str
    found: bool = False


class SendFailure(ChannelError):
    """A reply did not demonstrably arrive.

    ``permanent``: trying again cannot help. ``ambiguous``: the platform may have it, so look before resending.
    """

    code = "send_failed"

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        ambiguous: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        self.permanent = permanent
        self.ambiguous = ambiguous
        self.retry_after = retry_after
        super().__init__(message)


class Channel(Protocol):
    """One configured platform. Built only when its secret is set."""

    name: str
    receipt_shape: str
    """How an admission is answered: ``receipt`` (202 with the receipt) or ``ok`` (the platform wants an empty 200)."""

    def receive(self, request: RawRequest, now: datetime) -> list[InboundEvent] | Answer:
        """Verify and read a request.

        Raises:
            MalformedRequestError, SignatureError, MediaTypeError: answered 400, 401, 415.
        """
        ...

    def split(self, text: str) -> list[str]:
        """Cut a reply into parts the platform takes, at paragraph, line or word ends where possible; nothing is lost."""
        ...

    async def send(self, item: OutboxItem) -> SendReceipt:
        """Post one part; when ``item.recovered``, look first whether it is already there, where the platform lets us.

        Raises:
            SendFailure: it did not demonstrably arrive.
        """
        ...

    async def close(self) -> None:
        """Close connections; idempotent."""
        ...
