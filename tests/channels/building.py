"""What the channel tests are built from: channels with known secrets, requests and outbox items."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Raw

from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import Answer, Channel, InboundEvent, RawRequest
from pyflue.channels.signatures import sign_github, sign_slack, sign_standard, standard_keys
from pyflue.channels.signed import SampleMessage, SignedDelivery, signed_delivery
from pyflue.config import ChannelSettings, Secret, Secrets
from pyflue.dispatches import OutboxItem
from pyflue.ids import DispatchId, OutboxId, SessionId
from pyflue.testing.platforms import STANDARD_SECRET, FakePlatforms

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

SECRETS = Secrets(
    slack_signing_secret=Secret("slack-secret"),
    slack_bot_token=Secret("xoxb-test"),
    github_webhook_secret=Secret("github-secret"),
    github_token=Secret("ghs_test"),
    standard_webhook_secret=Secret(STANDARD_SECRET),
)
BY_CHANNEL = {
    "github": SECRETS.github_webhook_secret,
    "slack": SECRETS.slack_signing_secret,
    "standard": SECRETS.standard_webhook_secret,
}


def settings(name: str, **changes: str) -> ChannelSettings:
    if name == "standard":
        changes.setdefault("reply_url", "https://example.com/replies")
    return ChannelSettings(agent="assistant", **changes)


def channel(name: str, **changes: str) -> Channel:
    return build_channels({name: settings(name, **changes)}, SECRETS, timeout=5.0)[name]


def channel_at(fake: FakePlatforms, name: str, *, timeout: float = 5.0) -> Channel:
    """Return a channel that talks to the fake platforms."""
    address = {"github": fake.github_url, "slack": fake.slack_url}.get(name, "")
    chosen = settings(name, reply_url=fake.reply_url) if name == "standard" else settings(name, api_url=address)
    return build_channels({name: chosen}, SECRETS, timeout=timeout)[name]


def sample(name: str, text: str = "hello", *, thread: str = "", delivery_id: str = "delivery-1") -> SignedDelivery:
    return signed_delivery(name, BY_CHANNEL[name], SampleMessage(text, delivery_id, thread), NOW)


def signed(name: str, payload: object, **headers: str) -> RawRequest:
    """Return a correctly signed request with this JSON, or these bytes, as its body."""
    body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    if name == "github":
        proof = sign_github(b"github-secret", body)
        headers = {"x-github-event": "issue_comment", "x-github-delivery": "guid-1", **headers}
    elif name == "slack":
        proof = sign_slack(b"slack-secret", body, NOW)
    else:
        proof = sign_standard(standard_keys("standard", Secret(STANDARD_SECRET)).shared[0], "msg-1", body, NOW)
    return RawRequest("POST", {"content-type": "application/json", **proof, **headers}, body)


def one_event(result: list[InboundEvent] | Answer) -> InboundEvent:
    assert isinstance(result, list), f"answered {result.reason} instead"
    assert len(result) == 1
    return result[0]


def reason(result: list[InboundEvent] | Answer) -> str:
    assert isinstance(result, Answer), "became an event"
    return result.reason


def outbox_item(
    destination: Raw, *, body: str = "an answer", key: str = "dsp_1:0", recovered: bool = False
) -> OutboxItem:
    now = datetime.now(UTC)
    return OutboxItem(
        id=OutboxId("out_1"),
        session_id=SessionId("ses_1"),
        position=1,
        dispatch_id=DispatchId("dsp_1"),
        call_id="",
        part=0,
        channel="",
        destination=destination,
        body=body,
        idempotency_key=key,
        status="sending",
        attempts=1,
        available_at=now,
        created_at=now - timedelta(seconds=1),
        recovered=recovered,
    )
