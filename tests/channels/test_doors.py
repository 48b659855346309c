"""What every channel does before it believes a request."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.channels.protocol import Answer, RawRequest
from pyflue.errors import ChannelError, InvalidInputError, MalformedRequestError, MediaTypeError, SignatureError
from tests.channels.building import NOW, channel, one_event, sample, signed

NAMES = ("github", "slack", "standard")
SIGNATURES = {"github": "x-hub-signature-256", "slack": "x-slack-signature", "standard": "webhook-signature"}
STAMPS = {"slack": "x-slack-request-timestamp", "standard": "webhook-timestamp"}

every_channel = pytest.mark.parametrize("name", NAMES)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


def changed(request: RawRequest, **headers: str | None) -> RawRequest:
    """Return the request with headers set, or removed where the value is None; ``_`` stands for ``-``."""
    changes = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in request.headers.items() if name not in changes}
    kept |= {name: value for name, value in changes.items() if value is not None}
    return msgspec.structs.replace(request, headers=kept)


@every_channel
def test_a_signed_message_becomes_one_event(name: str) -> None:
    event = one_event(channel(name).receive(sample(name, "hello").as_request(), NOW))

    assert event.text == "hello"
    assert event.instance_id.startswith(f"{name}:")
    assert event.keys
    assert event.attributes["platform"] == name


@every_channel
def test_the_same_delivery_has_the_same_keys_and_another_has_others(name: str) -> None:
    keys = [
        {key.key for key in one_event(channel(name).receive(sample(name, delivery_id=d).as_request(), NOW)).keys}
        for d in ("delivery-1", "delivery-1", "delivery-2")
    ]

    assert keys[0] == keys[1]
    assert not keys[0] & keys[2]


@every_channel
@pytest.mark.parametrize(("text", "delivery_id"), [("hi", "é"), ("hi", "a b"), ("hi", ""), ("hi\udcff", "d-1")])
def test_a_sample_that_cannot_be_sent_is_refused_with_what_to_do(name: str, text: str, delivery_id: str) -> None:
    with pytest.raises(InvalidInputError, match="Write"):
        sample(name, text, delivery_id=delivery_id)


@every_channel
@pytest.mark.parametrize("signature", ["é", "v0=é", "sha256=\udcff", "v1,é", "", " ", "v1,", "sha256=", "\x00"])
def test_a_malformed_signature_is_a_mismatch_and_never_a_crash(name: str, signature: str) -> None:
    request = changed(sample(name).as_request(), **{SIGNATURES[name]: signature})

    with pytest.raises(SignatureError):
        channel(name).receive(request, NOW)


@every_channel
def test_a_request_without_signature_is_refused(name: str) -> None:
    with pytest.raises(SignatureError):
        channel(name).receive(changed(sample(name).as_request(), **{SIGNATURES[name]: None}), NOW)


@pytest.mark.parametrize("name", STAMPS)
def test_a_request_over_five_minutes_old_or_ahead_is_refused(name: str) -> None:
    request = sample(name).as_request()

    for at_the_limit in (timedelta(seconds=300), timedelta(seconds=-300)):
        one_event(channel(name).receive(request, NOW + at_the_limit))
    for beyond in (timedelta(seconds=301), timedelta(seconds=-301)):
        with pytest.raises(SignatureError):
            channel(name).receive(request, NOW + beyond)


@pytest.mark.parametrize("name", STAMPS)
@pytest.mark.parametrize("stamp", ["", "abc", "-1", "1e9", "٣", "1_0", "9" * 30, "1767323045.0", " 1767323045"])
def test_a_timestamp_that_is_not_whole_seconds_is_refused(name: str, stamp: str) -> None:
    with pytest.raises(SignatureError):
        channel(name).receive(changed(sample(name).as_request(), **{STAMPS[name]: stamp}), NOW)


@every_channel
@pytest.mark.parametrize("media_type", [None, "", "text/plain", "application/xml", "multipart/form-data; boundary=x"])
def test_another_media_type_is_refused_before_anything_else(name: str, media_type: str | None) -> None:
    request = changed(sample(name).as_request(), content_type=media_type, **{SIGNATURES[name]: "wrong"})

    with pytest.raises(MediaTypeError):
        channel(name).receive(request, NOW)


@every_channel
def test_a_media_type_may_have_parameters_and_capitals(name: str) -> None:
    request = changed(sample(name).as_request(), content_type="Application/JSON; charset=utf-8")

    one_event(channel(name).receive(request, NOW))


@every_channel
def test_only_post_is_read(name: str) -> None:
    with pytest.raises(MalformedRequestError):
        channel(name).receive(msgspec.structs.replace(sample(name).as_request(), method="GET"), NOW)


@every_channel
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"{}x",
        b"\xff\xfe",
        b'{"a":"\xff"}',
        b"[" * 50_000,
        b'{"type":' + b"[" * 50_000,
    ],
)
def test_a_signed_body_that_is_not_a_json_object_is_malformed(name: str, body: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        channel(name).receive(signed(name, body), NOW)


@every_channel
def test_an_error_never_quotes_the_request(name: str) -> None:
    with pytest.raises(MalformedRequestError) as raised:
        channel(name).receive(
            signed(name, {"type": {"s3cret": "s3cret"}, "text": 5, "action": 7, "comment": "s3cret"}), NOW
        )

    assert "s3cret" not in str(raised.value)


@every_channel
@given(data=st.data())
def test_whatever_comes_only_channel_errors_come_out(name: str, data: st.DataObject) -> None:
    headers = data.draw(
        st.dictionaries(
            st.sampled_from([*sample(name).headers, "svix-id", "svix-signature", "x-slack-retry-num"]),
            st.text(max_size=40),
        )
    )
    request = RawRequest(
        data.draw(st.sampled_from(["POST", "GET", ""])),
        {**sample(name).headers, **headers},
        data.draw(st.binary(max_size=200)),
    )

    with contextlib.suppress(ChannelError):
        channel(name).receive(request, NOW)


@every_channel
@given(data=st.data())
def test_a_signed_payload_with_any_field_replaced_gives_events_answers_or_channel_errors(
    name: str, data: st.DataObject
) -> None:
    delivery = sample(name)
    payload = msgspec.json.decode(delivery.body)
    place = payload
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            break
        place = place[key]
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(json_values)
    headers = {name: value for name, value in delivery.headers.items() if name.startswith("x-github")}

    try:
        result = channel(name).receive(signed(name, payload, **headers), NOW)
    except ChannelError:
        return

    assert isinstance(result, Answer | list)
    for event in result if isinstance(result, list) else []:
        assert "\x00" not in event.instance_id + event.session + "".join(key.source + key.key for key in event.keys)
        assert event.text.strip()
        assert event.occurred_at is None or event.occurred_at.tzinfo is not None
