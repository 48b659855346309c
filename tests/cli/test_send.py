"""``pyflue send``: a delivery the front takes for the platform's own."""

from __future__ import annotations

import json

import pytest

from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import InboundEvent, RawRequest
from pyflue.clock import SystemClock
from pyflue.config import ChannelSettings, Secret, Secrets
from pyflue.testing.platforms import STANDARD_SECRET
from tests.cli.operating import Desk
from tests.processes import command
from tests.services import free_port

SECRETS = {
    "GITHUB_WEBHOOK_SECRET": "github-secret",
    "SLACK_SIGNING_SECRET": "slack-secret",
    "STANDARD_WEBHOOK_SECRET": STANDARD_SECRET,
}


@pytest.mark.parametrize("channel", ["github", "slack", "standard"])
async def test_a_printed_delivery_is_one_its_channel_takes(desk: Desk, channel: str) -> None:
    done = await desk.run("send", channel, "hello", "--print", "--sender", "grace", "--delivery", "d-1", env=SECRETS)

    head, _, body = done.out.partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    secrets = Secrets(
        github_webhook_secret=Secret(SECRETS["GITHUB_WEBHOOK_SECRET"]),
        slack_signing_secret=Secret(SECRETS["SLACK_SIGNING_SECRET"]),
        standard_webhook_secret=Secret(STANDARD_SECRET),
    )
    settings = {channel: ChannelSettings(agent="triage", reply="none")}
    built = build_channels(settings, secrets, timeout=5)[channel]
    received = built.receive(RawRequest("POST", headers, body.rstrip("\n").encode()), SystemClock().now())
    assert done.code == 0
    assert first == f"POST http://127.0.0.1:9/webhooks/{channel}"
    assert not isinstance(received, InboundEvent)
    assert isinstance(received, list)
    assert received[0].text.endswith("hello")
    assert all(secret not in done.out for secret in SECRETS.values())


async def test_the_front_accepts_it_once_and_knows_it_again(desk: Desk) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    words = ("send", "standard", "hello", "--url", url, "--delivery", "d-1")
    async with command(desk.root, "web", "--port", str(port), env=desk.env) as web:
        await web.until_logged("web.started")
        first = await desk.run(*words)
        again = await desk.run(*words)
        other = await desk.run("send", "standard", "goodbye", "--url", url, "--delivery", "d-1")

    receipts = [json.loads(done.lines[1]) for done in (first, again)]
    assert (first.code, again.code, other.code) == (0, 0, 1)
    assert first.lines[0] == "202 Accepted  /webhooks/standard  delivery d-1"
    assert [receipt["duplicate"] for receipt in receipts] == [False, True]
    assert receipts[0]["dispatch_id"] == receipts[1]["dispatch_id"]
    assert other.lines[0].startswith("409 ")


async def test_without_a_secret_it_names_the_variable(desk: Desk) -> None:
    done = await desk.run("send", "github", "hello", env={"GITHUB_WEBHOOK_SECRET": ""})

    assert (done.code, done.out) == (1, "")
    assert "GITHUB_WEBHOOK_SECRET is not set." in done.err


async def test_without_a_front_it_says_where_it_looked(desk: Desk) -> None:
    done = await desk.run("send", "standard", "hello", "--url", f"http://127.0.0.1:{free_port()}")

    assert (done.code, done.out) == (1, "")
    assert "gave no answer" in done.err
    assert len(done.err.splitlines()) == 1


async def test_what_is_no_channel_or_no_thread_is_refused(desk: Desk) -> None:
    channel = await desk.run("send", "pigeon", "hello")
    thread = await desk.run("send", "github", "hello", "--thread", "somewhere", env=SECRETS)

    assert (channel.code, thread.code) == (2, 1)
    assert "owner/repo#12" in thread.err
