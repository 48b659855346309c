"""Which GitHub deliveries become work, and as what."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from pyflue.channels.protocol import Answer, InboundEvent
from pyflue.dispatches import DedupeKey
from pyflue.errors import MalformedRequestError
from tests.channels.building import NOW, channel, one_event, reason, signed

COMMENT: dict[str, Any] = {
    "action": "created",
    "issue": {"number": 7, "title": "It breaks", "html_url": "https://github.com/octo/demo/issues/7", "body": "Often."},
    "comment": {
        "id": 99,
        "node_id": "IC_99",
        "body": "@pyflue why?",
        "html_url": "https://github.com/octo/demo/issues/7#issuecomment-99",
        "created_at": "2026-01-02T03:04:00Z",
        "author_association": "MEMBER",
        "user": {"login": "ada", "id": 5},
        "performed_via_github_app": None,
    },
    "repository": {"id": 41, "full_name": "octo/demo"},
    "sender": {"login": "ada", "id": 5},
}
REVIEW: dict[str, Any] = {
    "action": "created",
    "pull_request": {"number": 8, "title": "Repair it", "body": None},
    "comment": {"id": 500, "node_id": "PRRC_500", "body": "Why this line?", "path": "a.py"},
    "repository": {"id": 41, "full_name": "octo/demo"},
    "sender": {"login": "ada", "id": 5},
}


def comment(**changes: object) -> dict[str, Any]:
    """Return the comment payload with values set at dotted paths; ``__`` stands for the dot."""
    payload = copy.deepcopy(COMMENT)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = payload
        for key in way:
            place = place[key]
        place[last] = value
    return payload


def receive(payload: object, event: str = "issue_comment", **settings: str) -> list[InboundEvent] | Answer:
    request = signed("github", payload, **{"x-github-event": event})
    return channel("github", **settings).receive(request, NOW)


def test_a_comment_becomes_an_event_of_its_issues_thread() -> None:
    event = one_event(receive(COMMENT))

    assert event.instance_id == "github:41:octo/demo#7"
    assert event.text == "@pyflue why?"
    assert event.occurred_at == datetime(2026, 1, 2, 3, 4, 0, tzinfo=UTC)
    assert event.attributes == {
        "platform": "github",
        "event": "issue_comment",
        "repository": "octo/demo",
        "number": "7",
        "title": "It breaks",
        "url": "https://github.com/octo/demo/issues/7#issuecomment-99",
        "author_association": "MEMBER",
        "sender": "ada",
        "sender_id": "5",
    }
    assert msgspec.json.decode(event.destination) == {"owner": "octo", "repo": "demo", "number": 7}
    assert event.body_hash is None


def test_a_comment_is_known_by_delivery_and_by_node_id() -> None:
    assert one_event(receive(COMMENT)).keys == (
        DedupeKey("github:41", "delivery:guid-1"),
        DedupeKey("github:41", "issue_comment:IC_99:created"),
    )


def test_a_form_is_read_like_json() -> None:
    body = urlencode({"payload": msgspec.json.encode(COMMENT).decode()}).encode()
    request = signed("github", body, **{"content-type": "application/x-www-form-urlencoded"})

    assert one_event(channel("github").receive(request, NOW)).text == "@pyflue why?"


@pytest.mark.parametrize("body", [b"", b"a=b", b"payload", b"payload=%ff", b"payload={", b"&".join([b"a=b"] * 50)])
def test_a_form_without_a_readable_payload_is_malformed(body: bytes) -> None:
    request = signed("github", body, **{"content-type": "application/x-www-form-urlencoded"})

    with pytest.raises(MalformedRequestError):
        channel("github").receive(request, NOW)


@pytest.mark.parametrize(("event", "key"), [("issues", "issue"), ("pull_request", "pull_request")])
def test_a_new_issue_or_pull_request_speaks_with_title_and_body(event: str, key: str) -> None:
    payload = {"action": "opened", key: COMMENT["issue"] | {"node_id": "I_7"}, "repository": COMMENT["repository"]}

    told = one_event(receive(payload, event))

    assert told.text == "It breaks\n\nOften."
    assert told.instance_id == "github:41:octo/demo#7"
    assert told.keys[1].key == f"{event}:I_7:opened"


def test_a_repository_that_takes_over_a_name_does_not_take_over_its_conversations() -> None:
    private = one_event(receive(comment(repository__id=41)))
    public = one_event(receive(comment(repository__id=42)))

    assert private.instance_id != public.instance_id


def test_a_review_thread_is_a_conversation_of_its_own() -> None:
    first = one_event(receive(REVIEW, "pull_request_review_comment"))
    answer = copy.deepcopy(REVIEW)
    answer["comment"] |= {"id": 501, "node_id": "PRRC_501", "in_reply_to_id": 500}
    second = one_event(receive(answer, "pull_request_review_comment"))

    assert first.instance_id == second.instance_id == "github:41:octo/demo#8:500"
    assert msgspec.json.decode(second.destination) == {
        "owner": "octo",
        "repo": "demo",
        "number": 8,
        "kind": "review",
        "reply_to": 500,
    }
    assert first.attributes["path"] == "a.py"


def test_a_ping_is_answered() -> None:
    assert reason(receive({"zen": "Speak like a human."}, "ping")) == "handshake"


@pytest.mark.parametrize("event", ["push", "star", "discussion_comment", "installation", ""])
def test_events_nobody_answers_are_acknowledged(event: str) -> None:
    result = receive({"anything": True}, event)

    assert isinstance(result, Answer)
    assert (result.status, result.reason) == (200, "not_handled")


@pytest.mark.parametrize(("action", "why"), [("edited", "edited"), ("deleted", "deleted"), ("pinned", "not_handled")])
def test_edits_and_deletions_are_acknowledged_and_not_worked(action: str, why: str) -> None:
    assert reason(receive(comment(action=action))) == why


def test_our_own_comments_are_dropped_by_login() -> None:
    assert reason(receive(comment(sender={"login": "PyFlue", "id": 1}), bot="pyflue")) == "own_message"
    assert reason(receive(comment(sender={"login": "pyflue[bot]", "id": 1}), bot="pyflue")) == "own_message"
    assert reason(receive(comment(sender={"login": "x", "id": 77}), bot="77")) == "own_message"
    assert one_event(receive(comment(sender={"login": "other[bot]", "id": 1}), bot="pyflue"))


def test_our_own_comments_are_dropped_by_app() -> None:
    payload = comment(comment__performed_via_github_app={"id": 1234})

    assert reason(receive(payload, app_id="1234")) == "own_message"
    assert one_event(receive(payload, app_id="99"))


def test_our_own_comments_are_dropped_by_their_marker_whoever_posted_them() -> None:
    assert reason(receive(comment(comment__body="Done.\n\n<!-- pyflue:dsp_1:0 -->\n"))) == "own_message"
    assert one_event(receive(comment(comment__body="> <!-- pyflue:dsp_1:0 -->\n\nWhat is this?")))


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        ("@pyflue why?", True),
        ("why, @PyFlue?", True),
        ("ask @pyflue-dev", False),
        ("no@pyflue", False),
        ("why?", False),
    ],
)
def test_with_a_mention_set_only_comments_that_name_it_are_answered(text: str, answered: bool) -> None:
    result = receive(comment(comment__body=text), mention="@pyflue")

    assert isinstance(result, list) is answered


def test_an_empty_comment_is_acknowledged() -> None:
    assert reason(receive(comment(comment__body=None))) == "empty"


def test_the_delivery_header_is_required() -> None:
    with pytest.raises(MalformedRequestError, match="delivery"):
        channel("github").receive(signed("github", COMMENT, **{"x-github-delivery": ""}), NOW)


@pytest.mark.parametrize("missing", ["repository", "issue", "comment"])
def test_a_payload_without_what_it_is_about_is_malformed(missing: str) -> None:
    payload = {key: value for key, value in COMMENT.items() if key != missing}

    with pytest.raises(MalformedRequestError):
        receive(payload)
