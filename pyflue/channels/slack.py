"""The ``slack`` channel: mentions and direct messages, from the Events API to replies in the thread.

Answered are mentions of the app in channels and messages sent to it directly. Other channel messages are
acknowledged and not worked, unless the channel's ``mention`` is ``"*"``. One mention arrives as two events with ids
of their own, so the message's ``(channel, ts)`` is a second key. Slack's retries are ordinary deliveries: the keys
tell which are duplicates, the retry header never does.

Slack documents no idempotency key. Each reply carries ours in its metadata; after an attempt with unknown outcome
the thread is searched for it before anything is posted.
"""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Raw, Struct

from pyflue.channels.http import Call, PlatformApi, Reply, read_answer, unresolved
from pyflue.channels.payloads import FORM, JSON, decode, media_type
from pyflue.channels.protocol import Answer, InboundEvent, RawRequest, SendFailure, SendReceipt
from pyflue.channels.signatures import check_slack, text_keys
from pyflue.channels.slack_payload import Callback, Event, Kind, Untyped
from pyflue.channels.splitting import split_text
from pyflue.clock import Clock
from pyflue.config import ChannelSettings, Secrets
from pyflue.dispatches import DedupeKey, OutboxItem
from pyflue.errors import MalformedRequestError

API_URL: Final = "https://slack.com/api"
LIMIT: Final = 11_000  # markdown_text takes 12,000 characters
PAGE: Final = 200  # messages listed at once; Slack advises no more
MOST_PAGES: Final = 50
CLOCK_SKEW: Final = timedelta(minutes=10)  # how far our clock and Slack's may be apart when looking for a reply
RATE_LIMIT_WAIT: Final = timedelta(seconds=30)  # when Slack limits our rate and does not say for how long

_KEPT_SUBTYPES: Final = frozenset({None, "file_share", "thread_broadcast", "me_message", "bot_message"})
_IGNORED_SUBTYPES: Final = {"message_changed": "edited", "message_deleted": "deleted"}
_UNSURE_ERRORS: Final = frozenset(
    {"internal_error", "fatal_error", "service_unavailable", "request_timeout", "duplicate_message_not_found"}
)
_TOKEN_ERRORS: Final = frozenset({"invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive"})
"""Until an operator sets another token; the reply waits for it."""
_RATE_ERRORS: Final = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
_NO_LOOKING: Final = frozenset({"missing_scope", "not_allowed_token_type", "method_deprecated", "no_permission"})


class _Destination(Struct, frozen=True, omit_defaults=True):
    channel: str
    thread_ts: str = ""


class _Payload(Struct, frozen=True):
    key: str = ""


class _Metadata(Struct, frozen=True):
    event_payload: _Payload
    event_type: str = "pyflue_reply"


class _Post(Struct, frozen=True, omit_defaults=True):
    channel: str
    markdown_text: str
    client_msg_id: str
    metadata: dict[str, str | dict[str, str]]
    thread_ts: str = ""


class _Message(Struct, frozen=True):
    ts: str = ""
    metadata: Raw = Raw()


class _Next(Struct, frozen=True):
    next_cursor: str = ""


class _Answer(Struct, frozen=True):
    ok: bool
    error: str = ""
    ts: str = ""
    messages: tuple[_Message, ...] = ()
    response_metadata: _Next = _Next()


class SlackError(SendFailure):
    """Slack answered 200 with ``ok: false``; ``error`` is its own word for why."""

    def __init__(self, error: str, *, permanent: bool, ambiguous: bool, retry_after: timedelta | None) -> None:
        self.error = error
        super().__init__(
            f"slack refused with {error[:80]!r}.", permanent=permanent, ambiguous=ambiguous, retry_after=retry_after
        )


class SlackChannel:
    """Receives Slack events and answers in the thread."""

    name: str = "slack"
    receipt_shape: str = "ok"

    def __init__(self, settings: ChannelSettings, secrets: Secrets, *, timeout: timedelta, clock: Clock) -> None:
        self._settings = settings
        self._keys = text_keys(secrets.slack_signing_secret)
        self._token = secrets.slack_bot_token
        self._base = (settings.api_url or API_URL).rstrip("/")
        self._api = PlatformApi(self.name, timeout=timeout, clock=clock)

    def receive(self, request: RawRequest, now: datetime) -> list[InboundEvent] | Answer:
        """Verify and read a request; see ``Channel.receive``.

        Forms (slash commands, interactivity) are verified and acknowledged; no agent works them.
        """
        kind = media_type(self.name, request, (JSON, FORM))
        check_slack(self.name, request.headers, request.body, self._keys, now)
        if kind == FORM:
            return _acknowledged("not_handled")
        outer = decode(self.name, request.body, Untyped)
        if outer.type == "url_verification":
            return Answer("handshake", body=msgspec.json.encode({"challenge": outer.challenge}))
        if outer.type != "event_callback":
            return _acknowledged("not_handled")
        if reason := _reason_to_skip(outer.event):
            return _acknowledged(reason)
        callback = decode(self.name, request.body, Callback)
        if reason := self._reason_to_ignore(callback):
            return _acknowledged(reason)
        return [self._event(callback, request.headers.get("x-slack-retry-num", ""))]

    def _reason_to_ignore(self, callback: Callback) -> str:
        """Return why nobody works this message; empty when somebody does."""
        event = callback.event
        if not (event.channel and event.ts and callback.team):
            raise MalformedRequestError(self.name, "The event lacks its channel, ts or team.")
        if self._is_own(callback):
            return "own_message"
        if event.type == "message" and not event.is_direct and self._settings.mention != "*":
            return "not_addressed"
        if not _text(callback):
            return "empty"
        return ""

    def _is_own(self, callback: Callback) -> bool:
        """Tell whether we posted this. Other bots may speak to an agent; it must only never answer itself."""
        event = callback.event
        if event.user and event.user in callback.bot_users:
            return True
        if event.app_id and event.app_id in (callback.api_app_id, self._settings.app_id):
            return True
        return bool(self._settings.bot) and self._settings.bot in (event.user, event.bot_id)

    def _event(self, callback: Callback, retry: str) -> InboundEvent:
        event = callback.event
        channel, source = event.channel or "", f"slack:{callback.team}"
        # A direct conversation is one conversation; in a channel, each thread is, and a mention starts one.
        thread_ts = event.thread_ts or ("" if event.is_direct else event.ts)
        attributes = {
            "platform": self.name,
            "event": event.type,
            "team": callback.team,
            "channel": channel,
            "channel_type": "im" if event.is_direct else event.channel_type or "",
            "ts": event.ts,
            "thread_ts": event.thread_ts or "",
            "sender": event.username or event.user or event.bot_id or "",
            "sender_id": event.user or event.bot_id or "",
            "files": _file_names(event),
            "retry": retry[:10],
        }
        return InboundEvent(
            instance_id=":".join(part for part in (source, channel, thread_ts) if part),
            keys=(
                DedupeKey(source, f"event:{callback.event_id}"),
                DedupeKey(source, f"message:{channel}:{event.ts}"),
            ),
            text=_text(callback),
            attributes={name: value for name, value in attributes.items() if value},
            destination=Raw(msgspec.json.encode(_Destination(channel, thread_ts))),
            occurred_at=event.said_at,
        )

    def split(self, text: str) -> list[str]:
        """Cut a reply into parts; see ``Channel.split``."""
        return split_text(text, LIMIT)

    async def send(self, item: OutboxItem) -> SendReceipt:
        """Post one part in the thread, our key in its metadata; see ``Channel.send``."""
        to = msgspec.json.decode(item.destination, type=_Destination)
        if item.recovered and (found := await self._find(to, item.idempotency_key, item.created_at)):
            return SendReceipt(found, found=True)
        post = _Post(
            channel=to.channel,
            thread_ts=to.thread_ts,
            markdown_text=item.body,
            # Slack knows this field, but does not promise to drop a second message that has the same one.
            client_msg_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"pyflue:{item.idempotency_key}")),
            metadata={"event_type": "pyflue_reply", "event_payload": {"key": item.idempotency_key}},
        )
        body = msgspec.json.encode(post)
        answer = await self._call(Call("POST", f"{self._base}/chat.postMessage", body))
        return SendReceipt(answer.ts)

    async def _find(self, to: _Destination, key: str, since: datetime) -> str:
        """Return the ts of the message that carries ``key``; empty if there is none, or the token may not look."""
        method = "conversations.replies" if to.thread_ts else "conversations.history"
        params = {"channel": to.channel, "include_all_metadata": "true", "limit": str(PAGE)}
        if to.thread_ts:
            params["ts"] = to.thread_ts
        params["oldest"] = f"{(since - CLOCK_SKEW).timestamp():.6f}"
        for _ in range(MOST_PAGES):
            try:
                answer = await self._call(Call("GET", f"{self._base}/{method}", params=params))
            except SendFailure as failure:
                if isinstance(failure, SlackError) and failure.error in _NO_LOOKING:
                    return ""  # a reply posted twice is better than one never posted
                raise unresolved(failure) from failure
            for message in answer.messages:
                if _key_of(message) == key:
                    return message.ts
            if not answer.response_metadata.next_cursor:
                return ""
            params["cursor"] = answer.response_metadata.next_cursor
        raise SendFailure("slack: too many messages to look through for an earlier attempt.", permanent=True)

    async def _call(self, call: Call) -> _Answer:
        headers = {
            "authorization": f"Bearer {self._token.reveal()}",
            "content-type": "application/json; charset=utf-8",
        }
        reply = await self._api.call(msgspec.structs.replace(call, headers=headers))
        if not reply.ok:
            raise self._api.failure(reply)
        answer = read_answer(self.name, reply, _Answer)
        if not answer.ok:
            raise self._refusal(answer.error, reply)
        return answer

    def _refusal(self, error: str, reply: Reply) -> SlackError:
        """Tell refusals that pass from those that stay; one we do not know is taken to stay."""
        wait = self._api.retry_after(reply)
        if error in _TOKEN_ERRORS:
            return SlackError(error, permanent=False, ambiguous=False, retry_after=wait)
        if error in _RATE_ERRORS:
            return SlackError(error, permanent=False, ambiguous=False, retry_after=wait or RATE_LIMIT_WAIT)
        unsure = error in _UNSURE_ERRORS
        return SlackError(error, permanent=not unsure, ambiguous=unsure, retry_after=wait)

    async def close(self) -> None:
        """Close connections; idempotent."""
        await self._api.close()


def _reason_to_skip(kind: Kind) -> str:
    """Return why an event of this kind is nobody speaking to us; empty when it may be."""
    if kind.type not in ("message", "app_mention"):
        return "not_handled"
    if kind.subtype not in _KEPT_SUBTYPES:
        return _IGNORED_SUBTYPES.get(kind.subtype or "", "not_a_message")
    return ""


def _acknowledged(reason: str) -> Answer:
    """Answer an empty 200, which is all Slack wants; the reason is for our own log."""
    return Answer(reason)


def _text(callback: Callback) -> str:
    """Return what was said, without the mention of us in front, and with Slack's three escapes undone."""
    text = callback.event.text or ""
    mention = re.match(r"\s*<@([A-Za-z0-9]+)(?:\|[^>]*)?>[:,]?\s*", text)
    if mention and mention[1] in callback.bot_users:
        text = text[mention.end() :]
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()
    files = _file_names(callback.event)
    return text or (f"[shared files: {files}]" if files else "")


def _file_names(event: Event) -> str:
    return ", ".join(file.name for file in event.files or () if file.name)


def _key_of(message: _Message) -> str:
    """Return the idempotency key a message carries; empty if it is not a reply of ours."""
    if not bytes(message.metadata):
        return ""
    try:
        metadata = msgspec.json.decode(message.metadata, type=_Metadata)
    except msgspec.DecodeError:
        return ""
    return metadata.event_payload.key if metadata.event_type == "pyflue_reply" else ""
