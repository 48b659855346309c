"""What the ``standard`` channel reads."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import msgspec
import pytest

from pyflue.dispatches import DedupeKey
from pyflue.errors import MalformedRequestError
from tests.channels.building import NOW, channel, one_event, reason, signed

MESSAGE = {"thread": "order-17", "text": "Where is it?"}


def test_thread_and_text_are_enough() -> None:
    request = signed("standard", MESSAGE)

    event = one_event(channel("standard").receive(request, NOW))

    assert event.instance_id == "standard:order-17"
    assert event.text == "Where is it?"
    assert event.session == "default"
    assert event.attributes == {"platform": "standard", "thread": "order-17"}
    assert event.payload is None
    assert msgspec.json.decode(event.destination) == {"thread": "order-17"}


def test_the_key_is_the_callers_webhook_id_so_the_body_is_hashed() -> None:
    request = signed("standard", MESSAGE)

    event = one_event(channel("standard").receive(request, NOW))

    assert event.keys == (DedupeKey("standard", "msg-1"),)
    assert event.body_hash == hashlib.sha256(request.body).digest()


def test_everything_optional_reaches_the_event() -> None:
    message = MESSAGE | {
        "id": "7",
        "type": "message",
        "session": "second",
        "sender": "ada",
        "attributes": {"plan": "pro", "platform": "forged"},
        "payload": {"deep": [1, None]},
        "timestamp": "2026-01-02T03:04:05Z",
        "reply_url": "https://example.com/other",
    }

    event = one_event(channel("standard").receive(signed("standard", message), NOW))

    assert event.session == "second"
    assert event.attributes == {"plan": "pro", "platform": "standard", "thread": "order-17", "sender": "ada"}
    assert event.payload is not None
    assert msgspec.json.decode(event.payload) == {"deep": [1, None]}
    assert event.occurred_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert msgspec.json.decode(event.destination) == {"thread": "order-17", "url": "https://example.com/other"}


def test_another_type_is_acknowledged_and_not_worked() -> None:
    request = signed("standard", {"type": "email.received", "data": {"anything": 1}})

    assert reason(channel("standard").receive(request, NOW)) == "not_handled"


@pytest.mark.parametrize(
    "change",
    [
        {"thread": ""},
        {"thread": None},
        {"thread": "a\u0000b"},
        {"thread": "a\n"},
        {"thread": "x" * 257},
        {"session": ""},
        {"text": ""},
        {"text": " \n"},
        {"text": 5},
        {"txet": "misspelt"},
        {"attributes": {"n": 1}},
        {"timestamp": "yesterday"},
        {"timestamp": "2026-01-02T03:04:05"},
    ],
)
def test_a_message_that_does_not_fit_the_schema_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(MalformedRequestError):
        channel("standard").receive(signed("standard", MESSAGE | change), NOW)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/replies",
        "http://example.com/replies",
        "https://example.com:444/replies",
        "https://example.com@evil.example/",
        "https://user@example.com/replies",
        "https://evil.example\\@example.com/",
        "https://example.com.evil.example/",
        "//example.com/replies",
        "file:///etc/passwd",
        "https://",
        "nonsense",
        "https://[::1",
    ],
)
def test_a_reply_url_of_another_origin_is_refused(url: str) -> None:
    with pytest.raises(MalformedRequestError, match="origin"):
        channel("standard").receive(signed("standard", MESSAGE | {"reply_url": url}), NOW)


def test_the_default_port_may_be_written_out() -> None:
    message = MESSAGE | {"reply_url": "HTTPS://EXAMPLE.com:443/replies"}

    one_event(channel("standard").receive(signed("standard", message), NOW))
