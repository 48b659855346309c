"""Which Slack events become work, and as what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from pyflue.channels.protocol import Answer, InboundEvent
from pyflue.dispatches import DedupeKey
from pyflue.errors import MalformedRequestError
from tests.channels.building import NOW, channel, one_event, reason, signed

MENTION: dict[str, Any] = {
    "type": "app_mention",
    "channel": "C1",
    "user": "U5",
    "text": "<@UBOT> is 1 &lt; 2 &amp; 3?",
    "ts": "1767323040.000100",
}
DIRECT: dict[str, Any] = MENTION | {"type": "message", "channel": "D1", "channel_type": "im", "text": "hello"}


def receive(event: dict[str, Any], retry: str = "", **settings: str) -> list[InboundEvent] | Answer:
    payload = {
        "type": "event_callback",
        "event_id": "Ev1",
        "team_id": "TAWAY",
        "api_app_id": "A1",
        "event": event,
        "authorizations": [{"team_id": "T1", "user_id": "UBOT", "is_bot": True, "is_enterprise_install": False}],
    }
    headers = {"x-slack-retry-num": retry, "x-slack-retry-reason": "http_timeout"} if retry else {}
    return channel("slack", **settings).receive(signed("slack", payload, **headers), NOW)


def test_a_mention_becomes_an_event_of_the_thread_it_starts() -> None:
    event = one_event(receive(MENTION))

    assert event.instance_id == "slack:T1:C1:1767323040.000100"
    assert event.text == "is 1 < 2 & 3?"
    assert event.occurred_at == datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)
    assert event.attributes == {
        "platform": "slack",
        "event": "app_mention",
        "team": "T1",
        "channel": "C1",
        "ts": "1767323040.000100",
        "sender": "U5",
        "sender_id": "U5",
    }
    assert msgspec.json.decode(event.destination) == {"channel": "C1", "thread_ts": "1767323040.000100"}


def test_a_mention_in_a_thread_belongs_to_that_thread() -> None:
    event = one_event(receive(MENTION | {"thread_ts": "1767000000.000200"}))

    assert event.instance_id == "slack:T1:C1:1767000000.000200"
    assert msgspec.json.decode(event.destination) == {"channel": "C1", "thread_ts": "1767000000.000200"}


def test_a_direct_conversation_is_one_conversation() -> None:
    event = one_event(receive(DIRECT))

    assert event.instance_id == "slack:T1:D1"
    assert msgspec.json.decode(event.destination) == {"channel": "D1"}
    assert (
        one_event(receive(DIRECT | {"thread_ts": "1767000000.000200"})).instance_id == "slack:T1:D1:1767000000.000200"
    )


def test_one_message_told_as_two_events_shares_a_key_and_a_thread() -> None:
    as_mention = one_event(receive(MENTION))
    as_message = one_event(receive(MENTION | {"type": "message", "channel_type": "channel"}, mention="*"))

    assert as_mention.instance_id == as_message.instance_id
    assert DedupeKey("slack:T1", "message:C1:1767323040.000100") in set(as_mention.keys) & set(as_message.keys)


def test_a_channel_message_is_answered_only_when_asked_for() -> None:
    message = MENTION | {"type": "message", "channel_type": "channel", "text": "lunch?"}

    assert reason(receive(message)) == "not_addressed"
    assert one_event(receive(message, mention="*")).text == "lunch?"


def test_a_retry_is_an_ordinary_delivery_and_is_only_noted() -> None:
    event = one_event(receive(MENTION, retry="2"))

    assert event.attributes["retry"] == "2"
    assert event.keys == one_event(receive(MENTION)).keys


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"user": "UBOT"}, {}),
        ({"app_id": "A1", "user": None, "bot_id": "B9", "subtype": "bot_message"}, {}),
        ({"user": "U77"}, {"bot": "U77"}),
        ({"user": None, "bot_id": "B77", "subtype": "bot_message"}, {"bot": "B77"}),
    ],
)
def test_our_own_messages_are_dropped(change: dict[str, Any], settings: dict[str, str]) -> None:
    assert reason(receive(DIRECT | change, **settings)) == "own_message"


def test_other_bots_may_speak_to_an_agent() -> None:
    event = one_event(receive(DIRECT | {"user": None, "bot_id": "B9", "username": "deploys", "subtype": "bot_message"}))

    assert (event.attributes["sender"], event.attributes["sender_id"]) == ("deploys", "B9")


@pytest.mark.parametrize(
    ("subtype", "why"),
    [
        ("message_changed", "edited"),
        ("message_deleted", "deleted"),
        ("channel_join", "not_a_message"),
        ("channel_topic", "not_a_message"),
        ("tombstone", "not_a_message"),
    ],
)
def test_what_is_not_somebody_speaking_is_acknowledged(subtype: str, why: str) -> None:
    assert reason(receive({"type": "message", "channel": "D1", "channel_type": "im", "subtype": subtype})) == why


@pytest.mark.parametrize(
    "event",
    [
        {"type": "team_join", "user": {"id": "U5", "name": "ada"}},
        {"type": "channel_created", "channel": {"id": "C2", "name": "news", "creator": "U5"}},
        {"type": "reaction_added", "user": "U5", "item": {"type": "message", "channel": "C1", "ts": "1.000001"}},
        {"type": "message", "subtype": "message_deleted", "channel": "D1", "files": {}, "ts": 1},
        {"type": "something_new", "text": ["blocks"], "channel": 7, "ts": None},
    ],
)
def test_events_nobody_answers_are_acknowledged_whatever_shape_they_have(event: dict[str, Any]) -> None:
    assert reason(receive(event)) in ("not_handled", "deleted")


@pytest.mark.parametrize("subtype", ["file_share", "thread_broadcast", "me_message", "bot_message"])
def test_subtypes_in_which_somebody_speaks_are_worked(subtype: str) -> None:
    assert one_event(receive(DIRECT | {"subtype": subtype})).text == "hello"


def test_shared_files_are_named_even_without_a_word() -> None:
    event = one_event(receive(DIRECT | {"subtype": "file_share", "text": "", "files": [{"name": "a.csv", "id": "F1"}]}))

    assert event.text == "[shared files: a.csv]"
    assert event.attributes["files"] == "a.csv"


def test_a_mention_without_a_word_is_acknowledged() -> None:
    assert reason(receive(MENTION | {"text": "<@UBOT>"})) == "empty"


def test_the_url_verification_is_answered_with_its_challenge() -> None:
    result = channel("slack").receive(signed("slack", {"type": "url_verification", "challenge": "abc"}), NOW)

    assert isinstance(result, Answer)
    assert (result.reason, result.status, result.body) == ("handshake", 200, b'{"challenge":"abc"}')


@pytest.mark.parametrize("payload", [{"type": "app_rate_limited", "team_id": "T1"}, {"type": "something_new"}, {}])
def test_other_envelopes_are_acknowledged(payload: dict[str, str]) -> None:
    assert reason(channel("slack").receive(signed("slack", payload), NOW)) == "not_handled"


def test_a_signed_form_is_acknowledged() -> None:
    body = urlencode({"command": "/ask", "text": "x"}).encode()
    request = signed("slack", body, **{"content-type": "application/x-www-form-urlencoded"})

    result = channel("slack").receive(request, NOW)

    assert isinstance(result, Answer)
    assert (result.reason, result.status, result.body) == ("not_handled", 200, b"")


def test_an_organisation_wide_installation_is_its_enterprise() -> None:
    payload = {
        "type": "event_callback",
        "event_id": "Ev1",
        "event": DIRECT,
        "authorizations": [{"team_id": "T1", "enterprise_id": "E1", "is_enterprise_install": True}],
    }

    assert one_event(channel("slack").receive(signed("slack", payload), NOW)).instance_id == "slack:E1:D1"


@pytest.mark.parametrize("missing", ["channel", "ts"])
def test_a_message_without_its_ids_is_malformed(missing: str) -> None:
    with pytest.raises(MalformedRequestError):
        receive({key: value for key, value in DIRECT.items() if key != missing})
