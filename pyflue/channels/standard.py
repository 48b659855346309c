"""The ``standard`` channel: any application that can sign a webhook as Standard Webhooks says.

A message is a signed POST of JSON; unknown fields are refused, so a misspelt one does not go unnoticed:

    {"thread": "order-17",          the conversation, required
     "text": "Where is my order?",  required
     "type": "message",             optional; any other type is acknowledged and not worked
     "id": "…",                     optional, for the sender's own use; the key is always the webhook-id header
     "session": "default",          optional, a session within the thread
     "sender": "ada",               optional, shown to the agent
     "attributes": {"plan": "pro"}, optional, strings, shown to the agent
     "payload": {…},                optional, JSON for the agent's initializer
     "timestamp": "2026-01-02T03:04:05Z",  optional, when it was said
     "reply_url": "https://…"}      optional; must have the origin of the configured reply_url

The reply is a signed POST to the configured ``reply_url``:

    {"type": "reply", "dispatch_id": "dsp_…", "thread": "order-17", "part": 0, "text": "It left today."}

``webhook-id`` is the same for every attempt at one part, so a receiver that remembers ids sees each part once.
Parts count from 0. Any 2xx accepts it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from pyflue.channels.http import Call, PlatformApi, origin_of
from pyflue.channels.payloads import JSON, decode, ignored, media_type
from pyflue.channels.protocol import Answer, InboundEvent, RawRequest, SendFailure, SendReceipt
from pyflue.channels.signatures import check_standard, sign_standard, standard_keys
from pyflue.channels.splitting import split_text
from pyflue.clock import Clock
from pyflue.config import ChannelSettings, Secrets
from pyflue.dispatches import DedupeKey, OutboxItem
from pyflue.errors import ConfigurationError, MalformedRequestError

LIMIT: Final = 100_000  # characters a part; the specification names no limit, receivers commonly stop at 256 KiB

# No control characters: names become keys and parts of ids, in logs and in databases that refuse NUL.
_NAME: Final = r"\A[^\x00-\x1f\x7f]+\Z"
Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=_NAME)]


class _Envelope(Struct):
    type: str = "message"


class StandardMessage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a message to the ``standard`` channel; the module's description explains the fields."""

    thread: Name
    text: Annotated[str, Meta(pattern=r"\S")]
    type: str = "message"
    id: str = ""
    session: Name = "default"
    sender: str = ""
    attributes: dict[str, str] = {}
    payload: Raw = Raw()
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    reply_url: str = ""


class StandardReply(Struct, frozen=True):
    """The body of the POST that carries one part of a reply."""

    type: str
    dispatch_id: str
    thread: str
    part: int
    text: str


class _Destination(Struct, frozen=True, omit_defaults=True):
    thread: str
    url: str = ""


class StandardChannel:
    """Receives Standard Webhooks messages and answers with signed POSTs."""

    name: str = "standard"
    receipt_shape: str = "receipt"

    def __init__(self, settings: ChannelSettings, secrets: Secrets, *, timeout: timedelta, clock: Clock) -> None:
        self._keys = standard_keys(self.name, secrets.standard_webhook_secret)
        self._reply_url = settings.reply_url
        if self._reply_url and origin_of(self._reply_url) is None:
            raise ConfigurationError(
                "channels.standard.reply_url is not an http or https address.",
                cause="Replies are posted there.",
                fix="Write it in full, like https://example.com/replies.",
            )
        if settings.reply != "none" and not self._keys.shared:
            raise ConfigurationError(
                "STANDARD_WEBHOOK_SECRET has no shared key to sign replies with.",
                cause="A whpk_ key is the sender's public key, which verifies and cannot sign.",
                fix='Add a line with a whsec_ key, or set reply = "none".',
            )
        self._api = PlatformApi(self.name, timeout=timeout, clock=clock)

    def receive(self, request: RawRequest, now: datetime) -> list[InboundEvent] | Answer:
        """Verify and read a request; see ``Channel.receive``."""
        media_type(self.name, request, (JSON,))
        key = check_standard(self.name, request.headers, request.body, self._keys, now)
        if decode(self.name, request.body, _Envelope).type != "message":
            return ignored("not_handled")
        message = decode(self.name, request.body, StandardMessage)
        if bytes(message.payload):
            decode(
                self.name, bytes(message.payload), object
            )  # it is passed on raw, so it must be JSON to the last escape
        return [self._event(message, key, request.body)]

    def _event(self, message: StandardMessage, key: str, body: bytes) -> InboundEvent:
        attributes = {**message.attributes, "platform": self.name, "thread": message.thread}
        if message.sender:
            attributes["sender"] = message.sender
        destination = _Destination(message.thread, self._checked(message.reply_url))
        return InboundEvent(
            instance_id=f"standard:{message.thread}",
            keys=(DedupeKey(self.name, key),),
            text=message.text,
            attributes=attributes,
            destination=Raw(msgspec.json.encode(destination)),
            occurred_at=message.timestamp,
            session=message.session,
            body_hash=hashlib.sha256(body).digest(),
            payload=message.payload if bytes(message.payload) else None,
        )

    def _checked(self, url: str) -> str:
        """Return the sender's ``reply_url`` if it has the origin configured here.

        Any other would let whoever holds the secret make this server post to places only it can reach.
        """
        if url and (not self._reply_url or origin_of(url) != origin_of(self._reply_url)):
            raise MalformedRequestError(self.name, "reply_url does not have the origin configured for replies.")
        return url

    def split(self, text: str) -> list[str]:
        """Cut a reply into parts; see ``Channel.split``."""
        return split_text(text, LIMIT)

    async def send(self, item: OutboxItem) -> SendReceipt:
        """Post one part, signed; see ``Channel.send``.

        There is nothing to look up: a receiver that remembers ``webhook-id`` drops what it already has.
        """
        destination = msgspec.json.decode(item.destination, type=_Destination)
        # The origin is compared again: the settings may have changed since the message was admitted.
        url = destination.url if origin_of(destination.url) == origin_of(self._reply_url) else self._reply_url
        if not url:
            raise SendFailure("standard has no reply_url to post replies to.", permanent=True)
        reply = StandardReply("reply", item.dispatch_id, destination.thread, item.part, item.body)
        body = msgspec.json.encode(reply)
        headers = sign_standard(self._keys.shared[0], item.idempotency_key, body, self._api.now())
        answer = await self._api.call(Call("POST", url, body, headers))
        if not answer.ok:
            raise self._api.failure(answer)
        return SendReceipt(item.idempotency_key)

    async def close(self) -> None:
        """Close connections; idempotent."""
        await self._api.close()
