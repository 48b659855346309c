"""Slack's Web API, as far as replies need it: chat.postMessage, conversations.replies and conversations.history.

Like Slack it answers 200 with ``ok: false`` when it refuses, and shows metadata only when asked to. It takes
``client_msg_id`` and does not deduplicate by it, since Slack does not promise that it does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct, structs

from pyflue.testing.http_server import Exchange
from pyflue.testing.posted import Answered, Posted, Record

_LONGEST: Final = 12_000  # characters of markdown_text

Metadata = dict[str, str | dict[str, str]]


class _Post(Struct, frozen=True):
    channel: str = ""
    markdown_text: str = ""
    text: str = ""
    thread_ts: str = ""
    client_msg_id: str = ""
    metadata: Metadata | None = None


class _Message(Struct, frozen=True, omit_defaults=True):
    ts: str
    text: str
    type: str = "message"
    user: str = "U0PYFLUE"
    thread_ts: str = ""
    metadata: Metadata | None = None


class FakeSlack:
    """Answers below ``/slack/api``. Channels exist as soon as somebody posts there."""

    name: Final = "slack"

    def __init__(self, record: Record) -> None:
        self._record = record
        self._channels: dict[str, list[_Message]] = {}
        self._last_serial = 0

    def writes(self, exchange: Exchange) -> bool:
        return exchange.path.endswith("/chat.postMessage")

    def answer(self, exchange: Exchange, path: str) -> Answered:
        """Answer one call; ``path`` is what follows the platform's base address."""
        if not exchange.headers.get("authorization", "").startswith("Bearer "):
            return _refused("not_authed")
        if path == "/api/chat.postMessage":
            return self._post(exchange)
        asked = {**exchange.query, **dict(parse_qsl(exchange.body.decode("utf-8", "replace")))}
        messages = self._channels.get(asked.get("channel", ""), [])
        if path == "/api/conversations.replies":
            thread = asked.get("ts", "")
            parent = _Message(thread, "what began the thread", user="U0SOMEBODY", thread_ts=thread)
            return _listed([parent, *(m for m in messages if m.thread_ts == thread)], asked)
        if path == "/api/conversations.history":
            return _listed([m for m in reversed(messages) if not m.thread_ts], asked)
        return _refused("unknown_method")

    def _post(self, exchange: Exchange) -> Answered:
        try:
            post = msgspec.json.decode(exchange.body, type=_Post)
        except (msgspec.DecodeError, UnicodeError):
            return _refused("invalid_json")
        if not post.channel:
            return _refused("channel_not_found")
        text = post.markdown_text or post.text
        if not text.strip():
            return _refused("no_text")
        if len(text) > _LONGEST:
            return _refused("msg_too_long")
        self._last_serial += 1
        now = datetime.now(UTC).timestamp()
        ts = f"{int(now)}.{self._last_serial:06}"
        message = _Message(ts, text, thread_ts=post.thread_ts, metadata=post.metadata)
        self._channels.setdefault(post.channel, []).append(message)
        key = _key_of(post.metadata)
        posted = Posted(
            platform="slack",
            id=ts,
            thread=post.channel + (f":{post.thread_ts}" if post.thread_ts else ""),
            text=text,
            key=key,
            at=now,
            duplicate=bool(key) and self._record.knows("slack", key),
        )
        body = {"ok": True, "channel": post.channel, "ts": ts, "message": message}
        return Answered(200, msgspec.json.encode(body), posted=posted)


def _key_of(metadata: Metadata | None) -> str:
    payload = (metadata or {}).get("event_payload", {})
    return payload.get("key", "") if isinstance(payload, dict) else ""


def _listed(messages: list[_Message], asked: dict[str, str]) -> Answered:
    """Return one page; the cursor is where the next one starts."""
    oldest = float(asked.get("oldest", "0") or 0)
    chosen = [m for m in messages if float(m.ts or 0) > oldest or m.ts == asked.get("ts")]
    if asked.get("include_all_metadata") != "true":
        chosen = [structs.replace(m, metadata=None) for m in chosen]
    start, size = int(asked.get("cursor", "0") or 0), int(asked.get("limit", "100"))
    more = str(start + size) if len(chosen) > start + size else ""
    body = {
        "ok": True,
        "messages": chosen[start : start + size],
        "has_more": bool(more),
        "response_metadata": {"next_cursor": more},
    }
    return Answered(200, msgspec.json.encode(body))


def _refused(error: str) -> Answered:
    return Answered(200, msgspec.json.encode({"ok": False, "error": error}))
