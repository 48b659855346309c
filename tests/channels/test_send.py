"""How replies reach a platform, and what is told when they do not; against the fake platforms over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Raw

from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import Channel, SendFailure
from pyflue.config import Secret, Secrets
from pyflue.testing.http_server import Exchange, HttpServer
from pyflue.testing.platforms import FakePlatforms
from pyflue.testing.posted import Failure, PlatformName
from tests.channels.building import SECRETS, channel_at, outbox_item, settings

NAMES: tuple[PlatformName, ...] = ("github", "slack", "standard")
LOOKING: tuple[PlatformName, ...] = ("github", "slack")
DESTINATIONS: dict[str, Raw] = {
    "github": Raw(b'{"owner":"octo","repo":"demo","number":7}'),
    "slack": Raw(b'{"channel":"C1","thread_ts":"1767323040.000100"}'),
    "standard": Raw(b'{"thread":"order-17"}'),
}
THREADS = {"github": "octo/demo#7", "slack": "C1:1767323040.000100", "standard": "order-17"}

every_channel = pytest.mark.parametrize("name", NAMES)
channels_that_look = pytest.mark.parametrize("name", LOOKING)


@pytest.fixture
async def fake() -> AsyncIterator[FakePlatforms]:
    async with FakePlatforms() as platforms:
        yield platforms


@asynccontextmanager
async def sending(fake: FakePlatforms, name: str, timeout: float = 5.0) -> AsyncIterator[Channel]:
    channel = channel_at(fake, name, timeout=timeout)
    try:
        yield channel
    finally:
        await channel.close()


async def failure_of(fake: FakePlatforms, name: str, *, timeout: float = 5.0, **item: Any) -> SendFailure:
    async with sending(fake, name, timeout) as channel:
        with pytest.raises(SendFailure) as raised:
            await channel.send(outbox_item(DESTINATIONS[name], **item))
    return raised.value


@every_channel
async def test_a_reply_arrives_in_its_thread_with_its_key(fake: FakePlatforms, name: PlatformName) -> None:
    async with sending(fake, name) as channel:
        receipt = await channel.send(outbox_item(DESTINATIONS[name], body="an *answer* ♥", key="dsp_1:call:2"))

    [posted] = fake.messages(name)
    assert (posted.thread, posted.text, posted.key) == (THREADS[name], "an *answer* ♥", "dsp_1:call:2")
    assert posted.id == receipt.id
    assert not receipt.found


@pytest.mark.parametrize(
    ("name", "destination", "thread"),
    [
        ("slack", b'{"channel":"D1"}', "D1"),
        ("github", b'{"owner":"octo","repo":"demo","number":8,"kind":"review","reply_to":500}', "octo/demo#8:500"),
    ],
)
async def test_other_places_are_answered_and_looked_through_too(
    fake: FakePlatforms, name: str, destination: bytes, thread: str
) -> None:
    async with sending(fake, name) as channel:
        first = await channel.send(outbox_item(Raw(destination)))
        again = await channel.send(outbox_item(Raw(destination), recovered=True))

    assert [posted.thread for posted in fake.messages()] == [thread]
    assert (again.id, again.found) == (first.id, True)


@every_channel
async def test_every_part_of_a_long_reply_is_taken_by_the_platform(fake: FakePlatforms, name: PlatformName) -> None:
    text = "word " * 40_000

    async with sending(fake, name) as channel:
        parts = channel.split(text)
        for number, part in enumerate(parts):
            await channel.send(outbox_item(DESTINATIONS[name], body=part, key=f"dsp_1:{number}"))

    assert " ".join(posted.text for posted in fake.messages(name)) == text.strip()


@channels_that_look
@pytest.mark.parametrize(
    ("when", "how"),
    [("after", "status"), ("after", "drop"), ("after", "hang"), ("during", "drop"), ("during", "hang")],
)
async def test_a_reply_accepted_before_the_failure_is_found_and_not_posted_again(
    fake: FakePlatforms, name: PlatformName, when: Literal["during", "after"], how: Literal["status", "drop", "hang"]
) -> None:
    fake.fail(Failure(name, when=when, how=how))

    failure = await failure_of(fake, name, timeout=0.5)
    async with sending(fake, name) as channel:
        receipt = await channel.send(outbox_item(DESTINATIONS[name], recovered=True))

    assert failure.ambiguous
    assert not failure.permanent
    assert receipt.found
    assert [posted.id for posted in fake.messages(name)] == [receipt.id]


@every_channel
@pytest.mark.parametrize("how", ["status", "drop", "hang"])
async def test_a_reply_lost_before_it_was_accepted_is_posted_once_when_sent_again(
    fake: FakePlatforms, name: PlatformName, how: str
) -> None:
    fake.fail(Failure(name, how=how))

    failure = await failure_of(fake, name, timeout=0.5)
    async with sending(fake, name) as channel:
        receipt = await channel.send(outbox_item(DESTINATIONS[name], recovered=True))

    assert failure.ambiguous
    assert not receipt.found
    assert len(fake.messages(name)) == 1


async def test_standard_sends_again_under_the_same_id_so_the_receiver_can_tell(fake: FakePlatforms) -> None:
    fake.fail(Failure("standard", when="after"))

    await failure_of(fake, "standard")
    async with sending(fake, "standard") as channel:
        await channel.send(outbox_item(DESTINATIONS["standard"], recovered=True))

    assert [(posted.id, posted.duplicate) for posted in fake.messages()] == [("dsp_1:0", False), ("dsp_1:0", True)]


@channels_that_look
async def test_a_reply_is_found_behind_pages_of_others(fake: FakePlatforms, name: PlatformName) -> None:
    async with sending(fake, name) as channel:
        for number in range(230):
            await channel.send(outbox_item(DESTINATIONS[name], key=f"dsp_{number}:0"))
        receipt = await channel.send(outbox_item(DESTINATIONS[name], key="dsp_229:0", recovered=True))

    assert receipt.found
    assert len(fake.messages(name)) == 230


@channels_that_look
@pytest.mark.parametrize("how", ["status", "drop", "hang"])
async def test_a_failed_look_leaves_the_earlier_attempt_unresolved(
    fake: FakePlatforms, name: PlatformName, how: str
) -> None:
    # Twice, because a look changes nothing and the client asks once more when the connection drops.
    fake.fail(Failure(name, calls="read", how=how, status=429, retry_after=7, times=2))

    failure = await failure_of(fake, name, timeout=0.5, recovered=True)

    assert failure.ambiguous
    assert fake.messages(name) == []
    assert failure.retry_after == (timedelta(seconds=7) if how == "status" else None)


@every_channel
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(fake: FakePlatforms, name: PlatformName, status: int) -> None:
    fake.fail(Failure(name, status=status, retry_after=42))

    failure = await failure_of(fake, name)

    assert failure.retry_after == timedelta(seconds=42)
    assert not failure.permanent
    assert failure.ambiguous is (status == 503)


async def test_retry_after_may_be_a_date(fake: FakePlatforms) -> None:
    until = datetime.now(UTC) + timedelta(seconds=60)
    fake.fail(Failure("standard", status=429, headers={"retry-after": format_datetime(until, usegmt=True)}))

    failure = await failure_of(fake, "standard")

    assert failure.retry_after is not None
    assert timedelta(seconds=50) < failure.retry_after <= timedelta(seconds=60)


@pytest.mark.parametrize("value", ["soon", "-1", "", "9" * 40])
async def test_an_unreadable_retry_after_is_as_none(fake: FakePlatforms, value: str) -> None:
    fake.fail(Failure("standard", status=429, headers={"retry-after": value}))

    failure = await failure_of(fake, "standard")

    assert (failure.retry_after, failure.permanent) == (None, False)


@every_channel
@pytest.mark.parametrize("status", [400, 403, 404, 410, 422, 302])
async def test_a_refusal_that_will_stay_is_permanent(fake: FakePlatforms, name: PlatformName, status: int) -> None:
    fake.fail(Failure(name, status=status, headers={"location": fake.url + "/_fake/health"}))

    failure = await failure_of(fake, name)

    assert failure.permanent
    assert not failure.ambiguous
    assert str(status) in str(failure)


@every_channel
async def test_a_token_that_is_not_accepted_any_more_is_waited_for(fake: FakePlatforms, name: PlatformName) -> None:
    fake.fail(Failure(name, status=401))

    failure = await failure_of(fake, name)

    assert (failure.permanent, failure.ambiguous) == (False, False)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"retry-after": "30"}, "{}", 30),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "{soon}"}, "{}", 100),
        ({}, '{"message":"You have exceeded a secondary rate limit."}', 60),
    ],
)
@pytest.mark.parametrize("status", [403, 429])
async def test_githubs_rate_limits_are_told_from_refusals(
    fake: FakePlatforms, status: int, headers: dict[str, str], body: str, expected: int
) -> None:
    soon = str(int(datetime.now(UTC).timestamp()) + 100)
    headers = {name: value.replace("{soon}", soon) for name, value in headers.items()}
    fake.fail(Failure("github", status=status, headers=headers, body=body))

    failure = await failure_of(fake, "github")

    assert failure.retry_after is not None
    assert abs(failure.retry_after.total_seconds() - expected) < 5
    assert not failure.permanent


async def test_githubs_refusal_says_what_github_said(fake: FakePlatforms) -> None:
    fake.fail(Failure("github", status=403, body='{"message":"Resource not accessible by integration"}'))

    assert "Resource not accessible" in str(await failure_of(fake, "github"))


@pytest.mark.parametrize(
    ("error", "permanent", "ambiguous"),
    [
        ("channel_not_found", True, False),
        ("is_archived", True, False),
        ("invalid_auth", False, False),
        ("token_revoked", False, False),
        ("some_new_error", True, False),
        ("ratelimited", False, False),
        ("internal_error", False, True),
        ("fatal_error", False, True),
    ],
)
async def test_slacks_refusals_come_with_200(fake: FakePlatforms, error: str, permanent: bool, ambiguous: bool) -> None:
    fake.fail(Failure("slack", status=200, body=f'{{"ok":false,"error":"{error}"}}'))

    failure = await failure_of(fake, "slack")

    assert (failure.permanent, failure.ambiguous) == (permanent, ambiguous)
    assert error in str(failure)


async def test_slack_without_the_scope_to_look_posts_rather_than_never(fake: FakePlatforms) -> None:
    fake.fail(Failure("slack", calls="read", status=200, body='{"ok":false,"error":"missing_scope"}'))

    async with sending(fake, "slack") as channel:
        await channel.send(outbox_item(DESTINATIONS["slack"], recovered=True))

    assert len(fake.messages("slack")) == 1


@channels_that_look
@pytest.mark.parametrize("body", ["", "<html>sign in</html>", "[]", "\ud83d"])
async def test_an_answer_that_is_not_the_platforms_is_ambiguous(
    fake: FakePlatforms, name: PlatformName, body: str
) -> None:
    fake.fail(Failure(name, status=200, body=body.encode("utf-8", "replace").decode()))

    assert (await failure_of(fake, name)).ambiguous


@every_channel
async def test_a_platform_that_cannot_be_reached_has_certainly_not_accepted(name: str) -> None:
    async with FakePlatforms() as fake:
        channel = channel_at(fake, name)

    with pytest.raises(SendFailure) as raised:
        await channel.send(outbox_item(DESTINATIONS[name]))
    await channel.close()

    assert (raised.value.permanent, raised.value.ambiguous) == (False, False)


async def test_a_platform_that_answers_a_byte_at_a_time_runs_out_of_time() -> None:
    import asyncio

    async def drip(exchange: Exchange) -> None:
        exchange.start(200, {})
        while True:
            exchange.write(b" ")
            await asyncio.sleep(0.02)

    server = HttpServer(drip)
    port = await server.start()
    chosen = settings("slack", api_url=f"http://127.0.0.1:{port}")
    channel = build_channels({"slack": chosen}, SECRETS, timeout=0.3)["slack"]
    try:
        async with asyncio.timeout(5):
            with pytest.raises(SendFailure) as raised:
                await channel.send(outbox_item(DESTINATIONS["slack"]))
    finally:
        await channel.close()
        await server.stop()

    assert raised.value.ambiguous


async def test_a_redirect_is_not_followed(fake: FakePlatforms) -> None:
    elsewhere = FakePlatforms()
    async with elsewhere:
        fake.fail(Failure("standard", status=307, headers={"location": elsewhere.reply_url}))

        failure = await failure_of(fake, "standard")

        assert failure.permanent
        assert elsewhere.messages() == []


async def test_a_reply_goes_to_the_senders_address_only_while_it_has_the_configured_origin(fake: FakePlatforms) -> None:
    async with FakePlatforms() as elsewhere, sending(fake, "standard") as channel:
        for url in (f"{fake.reply_url}/deeper", f"{elsewhere.reply_url}/"):
            destination = Raw(msgspec.json.encode({"thread": "order-17", "url": url}))
            await channel.send(outbox_item(destination, key=url.replace(" ", "")))

        assert len(fake.messages("standard")) == 2
        assert elsewhere.messages() == []


async def test_a_reply_signed_with_another_secret_is_refused_by_the_receiver(fake: FakePlatforms) -> None:
    secrets = Secrets(standard_webhook_secret=Secret("whsec_b3RoZXI="))
    channel = build_channels({"standard": settings("standard", reply_url=fake.reply_url)}, secrets, timeout=5.0)[
        "standard"
    ]

    with pytest.raises(SendFailure) as raised:
        await channel.send(outbox_item(DESTINATIONS["standard"]))
    await channel.close()

    assert not raised.value.permanent  # until the secrets agree
    assert fake.messages() == []


@every_channel
async def test_no_failure_shows_a_secret(fake: FakePlatforms, name: PlatformName) -> None:
    for failure in (Failure(name), Failure(name, status=401), Failure(name, how="drop")):
        fake.fail(failure)
        told = str(await failure_of(fake, name))
        assert not any(secret in told for secret in ("xoxb-test", "ghs_test", "github-secret", "whsec_", fake.url))


@every_channel
async def test_closing_twice_is_harmless(fake: FakePlatforms, name: PlatformName) -> None:
    async with sending(fake, name) as channel:
        await channel.send(outbox_item(DESTINATIONS[name]))
        await channel.close()
