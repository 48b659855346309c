"""The fake platforms: as a process of their own, and where they must behave like the platforms."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import SendFailure
from pyflue.testing.platforms import FakePlatforms
from tests.channels.building import SECRETS, outbox_item, settings
from tests.channels.test_send import DESTINATIONS

AUTH = {"authorization": "Bearer token"}


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "pyflue.testing.platforms", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield running, running.stdout.readline().split()[-1]
        running.kill()


async def test_another_process_can_script_and_read_them(process: tuple[subprocess.Popen[str], str]) -> None:
    running, url = process
    channel = build_channels({"slack": settings("slack", api_url=f"{url}/slack/api")}, SECRETS, timeout=5.0)["slack"]
    async with httpx2.AsyncClient(base_url=url) as client:
        scripted = await client.post("/_fake/script", json={"platform": "slack", "when": "after", "times": 2})
        for _ in range(2):
            with pytest.raises(SendFailure):
                await channel.send(outbox_item(DESTINATIONS["slack"], body="hello"))
        await channel.send(outbox_item(DESTINATIONS["slack"], body="hello"))
        messages = (await client.get("/_fake/messages", params={"platform": "slack"})).json()
        nothing = (await client.get("/_fake/messages", params={"platform": "github"})).json()
        await client.post("/_fake/reset")
        after_reset = (await client.get("/_fake/messages")).json()
    await channel.close()

    assert scripted.status_code == 200
    assert [(message["text"], message["duplicate"]) for message in messages] == [
        ("hello", False),
        ("hello", True),
        ("hello", True),
    ]
    assert nothing == after_reset == []

    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=10) == 0


async def test_a_script_with_a_misspelt_field_is_refused() -> None:
    async with FakePlatforms() as fake, httpx2.AsyncClient(base_url=fake.url) as client:
        assert (await client.post("/_fake/script", json={"platform": "slack", "wen": "after"})).status_code == 400
        assert (await client.post("/_fake/script", json={"platform": "smoke"})).status_code == 400
        assert (await client.post("/_fake/script", json={"platform": "slack", "when": "during"})).status_code == 400
        assert (await client.get("/_fake/nothing")).status_code == 404
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.get("/_fake/health")).status_code == 200


async def test_calls_without_authorization_are_refused_as_the_platform_does() -> None:
    async with FakePlatforms() as fake, httpx2.AsyncClient() as client:
        github = await client.post(f"{fake.github_url}/repos/o/r/issues/1/comments", json={"body": "x"})
        slack = await client.post(f"{fake.slack_url}/chat.postMessage", json={"channel": "C1", "markdown_text": "x"})
        standard = await client.post(fake.reply_url, json={"thread": "t", "text": "x"})

        assert github.status_code == 401
        assert (slack.status_code, slack.json()["error"]) == (200, "not_authed")
        assert standard.status_code == 401
        assert fake.messages() == []


async def test_messages_over_the_platforms_limit_are_refused() -> None:
    async with FakePlatforms() as fake, httpx2.AsyncClient(headers=AUTH) as client:
        comments = f"{fake.github_url}/repos/o/r/issues/1/comments"
        github = await client.post(comments, json={"body": "x" * 65_537})
        post = {"channel": "C1", "markdown_text": "x" * 12_001}
        slack = await client.post(f"{fake.slack_url}/chat.postMessage", json=post)

        assert github.status_code == 422
        assert slack.json() == {"ok": False, "error": "msg_too_long"}


async def test_githubs_comments_are_listed_in_pages_and_by_time() -> None:
    async with FakePlatforms() as fake, httpx2.AsyncClient(headers=AUTH) as client:
        comments = f"{fake.github_url}/repos/o/r/issues/1/comments"
        for number in range(3):
            assert (await client.post(comments, json={"body": str(number)})).status_code == 201
        first = await client.get(comments, params={"per_page": "2"})
        second = await client.get(comments, params={"per_page": "2", "page": "2"})
        future = await client.get(comments, params={"since": "2999-01-01T00:00:00Z"})

        assert [comment["body"] for comment in first.json()] == ["0", "1"]
        assert 'rel="next"' in first.headers["link"]
        assert [comment["body"] for comment in second.json()] == ["2"]
        assert "link" not in second.headers
        assert future.json() == []


async def test_slack_shows_metadata_only_when_asked_to() -> None:
    async with FakePlatforms() as fake, httpx2.AsyncClient(headers=AUTH) as client:
        metadata = {"event_type": "pyflue_reply", "event_payload": {"key": "k"}}
        post = {"channel": "C1", "thread_ts": "1.1", "markdown_text": "x", "metadata": metadata}
        await client.post(f"{fake.slack_url}/chat.postMessage", json=post)
        asked = {"channel": "C1", "ts": "1.1"}
        plain = await client.get(f"{fake.slack_url}/conversations.replies", params=asked)
        asked["include_all_metadata"] = "true"
        full = await client.get(f"{fake.slack_url}/conversations.replies", params=asked)
        history = await client.get(f"{fake.slack_url}/conversations.history", params={"channel": "C1"})

        assert "metadata" not in plain.json()["messages"][1]
        assert full.json()["messages"][1]["metadata"] == metadata
        assert history.json()["messages"] == []
