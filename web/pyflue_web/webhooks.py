"""Steps 1 to 3 of the road over HTTP: read a delivery, have its channel verify it, admit it, say so.

This is a plain ASGI application mounted under ``/webhooks``: deliveries are the one route whose rate the
platforms choose, and it needs neither parsing nor injection.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from litestar.types import HTTPScope, Receive, Scope, Send

from pyflue.channels.protocol import Answer, Channel, InboundEvent, RawRequest
from pyflue.dispatches import Receipt
from pyflue.errors import BodyTooLargeError, MalformedRequestError, PyFlueError, UnknownChannelError
from pyflue.ids import encode_base32
from pyflue.mailbox.admit import admission_of
from pyflue.observers.logs import log
from pyflue.wire import accepted
from pyflue_web.deps import WebDeps
from pyflue_web.problems import (
    HttpAnswer,
    body_answer,
    channel_answer,
    error_answer,
    failure_answer,
    http_answer,
)

BODY_TIMEOUT: Final = 10.0  # seconds a sender may take for its body; no platform waits longer for an answer
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, level 1


class Webhooks:
    """``POST /webhooks/{channel}``. Answers 202 (or what the platform wants) only after the commit."""

    def __init__(self, deps: WebDeps) -> None:
        self._deps = deps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a websocket has no business here; returning refuses it
            return
        began = self._deps.clock.monotonic()
        name = scope["path"].strip("/").removeprefix("webhooks/")
        dispatches: list[str] = []
        try:
            answer = await self._answer(name, scope, receive, dispatches)
        except PyFlueError as error:
            answer = error_answer(error) or self._failed(name, error)
        except Exception as error:  # noqa: BLE001 - the request door: whatever it is, the sender gets an answer
            answer = self._failed(name, error)
        milliseconds = int((self._deps.clock.monotonic() - began) * 1000)
        if answer is not None:
            await _send(send, answer)
        log(
            "webhook.answered",
            channel=name if name in self._deps.channels else "",
            status=answer.status if answer else 0,
            code=answer.code if answer else "disconnected",
            dispatch_id=",".join(dispatches),
            duration_ms=milliseconds,
        )

    async def _answer(self, name: str, scope: HTTPScope, receive: Receive, dispatches: list[str]) -> HttpAnswer | None:
        """Handle one delivery; None when the sender is gone. Ids of what was admitted go into ``dispatches``."""
        channel = self._deps.channels.get(name)
        if channel is None:
            raise UnknownChannelError(name[:64])
        if scope["method"] != "POST":
            return http_answer(405, "A webhook is delivered with POST.", (("allow", "POST"),))
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await self._read_body(name, headers, receive)
        except TimeoutError:
            return http_answer(408, "The body did not arrive in time.", (("connection", "close"),))
        if body is None:
            return None
        received = channel.receive(RawRequest(scope["method"], headers, body), self._deps.clock.now())
        if isinstance(received, Answer):
            return channel_answer(received)
        traceparent = headers.get("traceparent", "")
        receipts = await self._admit(name, received, traceparent if _TRACEPARENT.fullmatch(traceparent) else "")
        dispatches.extend(receipt.dispatch_id for receipt in receipts)
        return _accepted(channel, receipts)

    async def _read_body(self, name: str, headers: dict[str, str], receive: Receive) -> bytes | None:
        """Read the whole body, never more of it than the channel allows; None when the sender went away."""
        limit = self._deps.settings.channels[name].max_body_bytes
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise MalformedRequestError(name, "The content-length header is not a number.")
        if int(declared[:20]) > limit:
            raise BodyTooLargeError(limit)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            if message["type"] != "http.request":
                continue
            size += len(message["body"])
            if size > limit:
                raise BodyTooLargeError(limit)
            chunks.append(message["body"])
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _admit(self, name: str, events: list[InboundEvent], traceparent: str) -> list[Receipt]:
        settings = self._deps.settings.channels[name]
        admissions = [admission_of(event, name, settings, self._deps.ids, traceparent) for event in events]
        if len(admissions) == 1:
            return [await self._deps.admitter.admit(admissions[0])]
        outcomes = await asyncio.gather(
            *(self._deps.admitter.admit(admission) for admission in admissions), return_exceptions=True
        )
        for outcome in outcomes:  # all were tried, so that sending it again finds the rest to be duplicates
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Receipt)]

    def _failed(self, name: str, error: Exception) -> HttpAnswer:
        reference = encode_base32(self._deps.ids.random_bits(80), 16)
        log("request.failed", level="error", exc_info=error, channel=name[:64], reference=reference)
        return failure_answer(reference)


def _accepted(channel: Channel, receipts: list[Receipt]) -> HttpAnswer:
    duplicate = all(receipt.duplicate for receipt in receipts)
    code = "ignored" if not receipts else "duplicate" if duplicate else "accepted"
    if channel.receipt_shape == "ok" or not receipts:
        return HttpAnswer(200, b"", "text/plain; charset=utf-8", code)
    return body_answer(202, accepted(receipts), code)


async def _send(send: Send, answer: HttpAnswer) -> None:
    headers = [
        (b"content-type", answer.media_type.encode("latin-1")),
        (b"content-length", str(len(answer.body)).encode()),
        *((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})
