"""Replies leave in order, are never forgotten and never blindly repeated."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from pyflue.channels.protocol import SendFailure, SendReceipt
from pyflue.config import OutboxSettings, Settings
from pyflue.dispatches import OutboxItem
from pyflue.errors import CommitUnknownError
from pyflue.session.backoff import doubled
from pyflue.testing.flow import FAST, Flow
from pyflue.testing.models import ScriptedModel
from pyflue.testing.posted import Failure
from tests.session.agents import an_agent


class OddChannel:
    """A channel whose sending does what a test says, item by item; it accepts the rest."""

    name = "standard"
    receipt_shape = "receipt"

    def __init__(self, *outcomes: Exception) -> None:
        self.outcomes = list(outcomes)
        self.items: list[OutboxItem] = []

    def receive(self, request: object, now: object) -> list[object]:
        raise NotImplementedError

    def split(self, text: str) -> list[str]:
        return text.split("|")

    async def send(self, item: OutboxItem) -> SendReceipt:
        self.items.append(item)
        if self.outcomes:
            raise self.outcomes.pop(0)
        return SendReceipt(f"m{len(self.items)}")

    async def close(self) -> None:
        return


async def with_channel(flow: Flow, channel: OddChannel) -> None:
    """Let this worker send through ``channel``."""
    await flow.worker.kill()
    await flow.start_worker(channels={"standard": channel})  # type: ignore[dict-item]


async def status(flow: Flow) -> list[str]:
    return [item.status for item in await flow.store.views.outbox()]


async def test_parts_of_a_long_reply_leave_one_after_the_other() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one|two|three", "four")) as flow:
        channel = OddChannel()
        await with_channel(flow, channel)
        await flow.receive("standard", "hi")
        await flow.receive("standard", "hi")
        await flow.until(lambda: len(channel.items) == 4)
        await flow.until_idle()

        assert [item.body for item in channel.items] == ["one", "two", "three", "four"]
        assert len({item.idempotency_key for item in channel.items}) == 4
        assert await status(flow) == ["sent"] * 4


async def test_a_platform_that_asks_us_to_wait_is_given_its_time_and_holds_back_what_follows() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one", "two")) as flow:
        flow.platforms.fail(Failure("standard", status=429, retry_after=60))
        first = await flow.receive("standard", "hi")
        await flow.outcome(first)
        await flow.until(lambda: is_delayed(flow))
        await flow.outcome(await flow.receive("standard", "hi again"))
        await flow.pass_time(59)
        assert flow.platforms.messages() == []
        await flow.pass_time(1)

        assert await flow.replies(count=2) == ["one", "two"]
        assert "reply.delayed" in [event.type for event in await flow.events(first)]


async def is_delayed(flow: Flow) -> bool:
    return any(item.status == "pending" and item.attempts for item in await flow.store.views.outbox())


async def test_another_session_does_not_wait_for_it() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one", "two")) as flow:
        flow.platforms.fail(Failure("standard", status=429, retry_after=60))
        await flow.receive("standard", "hi", thread="a")
        await flow.until(lambda: is_delayed(flow))
        await flow.receive("standard", "hi", thread="b")

        assert await flow.replies() == ["two"]


async def test_pauses_grow_when_the_platform_names_none() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello")) as flow:
        channel = OddChannel(SendFailure("down"), SendFailure("down"), SendFailure("down"))
        await with_channel(flow, channel)
        await flow.receive("standard", "hi")
        pauses: list[timedelta] = []
        for count in (1, 2, 3):
            await flow.until(lambda count=count: len(channel.items) == count)
            await flow.until(lambda: is_delayed(flow))
            [item] = await flow.store.views.outbox()
            pauses.append(item.available_at - flow.clock.now())
            await flow.pass_time(pauses[-1].total_seconds())
        await flow.until(lambda: len(channel.items) == 4)

        assert pauses[0] < pauses[1] < pauses[2]
        assert [item.recovered for item in channel.items] == [False] * 4


@pytest.mark.parametrize("platform", ["github", "slack", "standard"])
async def test_a_reply_the_platform_took_without_saying_so_is_not_posted_twice(platform: str) -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello"), channels={platform: "auto"}) as flow:
        flow.platforms.fail(Failure(platform, when="after", how="drop"))  # type: ignore[arg-type]
        receipt = await flow.receive(platform, "hi")
        await flow.outcome(receipt)
        await flow.until(lambda: is_delayed(flow))
        await flow.pass_time(2)
        await flow.until_idle()

        seen = [message for message in flow.platforms.messages(platform) if not message.duplicate]
        assert [message.text for message in seen] == ["hello"]
        if platform != "standard":  # its receiver knows a key it has seen; the others are looked at first
            assert len(flow.platforms.messages(platform)) == 1


async def test_a_worker_that_dies_after_the_platform_took_it_leaves_a_reply_that_is_looked_for_first() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello"), channels={"slack": "auto"}) as flow:
        hold = flow.worker.faults.hold("outbox.sent")
        receipt = await flow.receive("slack", "hi")
        await hold.reached.wait()
        assert len(flow.platforms.messages()) == 1
        await flow.take_over()
        await flow.until_idle()

        assert len(flow.platforms.messages()) == 1
        sent = [event for event in await flow.events(receipt) if event.type == "reply.sent"]
        assert len(sent) == 1
        assert b'"found":true' in bytes(sent[0].data)


async def test_a_permanent_refusal_is_given_up_at_once_and_frees_the_next() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one|two")) as flow:
        channel = OddChannel(SendFailure("That channel is gone.", permanent=True))
        await with_channel(flow, channel)
        receipt = await flow.receive("standard", "hi")
        await flow.until(lambda: len(channel.items) == 2)
        await flow.until_idle()

        assert await status(flow) == ["undeliverable", "sent"]
        assert "reply.undeliverable" in [event.type for event in await flow.events(receipt)]
        assert (await flow.row(receipt)).status == "completed"


async def test_after_so_many_tries_it_is_given_up() -> None:
    settings = Settings(worker=FAST, outbox=OutboxSettings(max_attempts=2, first_delay=1.0))
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello"), settings=settings) as flow:
        channel = OddChannel(SendFailure("down"), SendFailure("down"))
        await with_channel(flow, channel)
        await flow.receive("standard", "hi")
        await flow.until(lambda: is_delayed(flow))
        await flow.pass_time(1)
        await flow.until_idle()

        assert await status(flow) == ["undeliverable"]


async def test_being_told_when_to_try_again_uses_up_no_try() -> None:
    settings = Settings(worker=FAST, outbox=OutboxSettings(max_attempts=2))
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello"), settings=settings) as flow:
        channel = OddChannel(*[SendFailure("Too many.", retry_after=timedelta(seconds=1))] * 4)
        await with_channel(flow, channel)
        await flow.receive("standard", "hi")
        for count in range(1, 5):
            await flow.until(lambda count=count: len(channel.items) == count)
            await flow.until(lambda: is_delayed(flow))
            await flow.pass_time(1)
        await flow.until_idle()

        assert await status(flow) == ["sent"]


def test_the_usual_number_of_tries_lasts_for_the_usual_time() -> None:
    usual = OutboxSettings()
    pauses = [doubled("out_1", n, usual.first_delay, usual.longest_delay) for n in range(1, usual.max_attempts)]

    assert sum(pauses, timedelta()).total_seconds() > usual.give_up_after


async def test_after_so_long_it_is_given_up() -> None:
    settings = Settings(worker=FAST, outbox=OutboxSettings(give_up_after=60.0, first_delay=40.0))
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello"), settings=settings) as flow:
        channel = OddChannel(*[SendFailure("down")] * 5)
        await with_channel(flow, channel)
        await flow.receive("standard", "hi")
        await flow.until(lambda: is_delayed(flow))
        await flow.pass_time(130)
        await flow.until_idle()

        assert await status(flow) == ["undeliverable"]
        assert len(channel.items) == 3


async def test_a_bug_in_a_channel_does_not_strand_the_session() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one", "two")) as flow:
        channel = OddChannel(KeyError("a bug"))
        await with_channel(flow, channel)
        await flow.receive("standard", "hi")
        await flow.until(lambda: is_delayed(flow))
        await flow.receive("standard", "hi")
        await flow.pass_time(2)
        await flow.until_idle()

        assert [item.body for item in channel.items] == ["one", "one", "two"]
        assert channel.items[1].recovered


async def test_a_channel_configured_elsewhere_is_left_to_workers_that_have_it() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello")) as flow:
        await flow.worker.kill()
        await flow.start_worker(channels={})
        receipt = await flow.receive("standard", "hi")
        await flow.outcome(receipt)
        await flow.until(lambda: is_delayed(flow))
        assert flow.platforms.messages() == []

        await flow.worker.kill()
        await flow.start_worker()
        await flow.pass_time(31)
        assert await flow.replies() == ["hello"]


async def test_a_mark_of_sending_that_may_have_been_lost_is_made_again_without_sending_again() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello")) as flow:
        channel = OddChannel()
        await with_channel(flow, channel)
        flow.worker.faults.fail("outbox.sent", CommitUnknownError(), times=2)
        await flow.receive("standard", "hi")
        await flow.until_idle()

        assert len(channel.items) == 1
        assert await status(flow) == ["sent"]


async def test_the_reply_behind_one_whose_mark_landed_unseen_leaves_in_the_next_round() -> None:
    settings = Settings(worker=replace(FAST, rescue=0.3))
    async with Flow({"agent": an_agent()}, model=ScriptedModel("one|two"), settings=settings) as flow:
        channel = OddChannel()
        await with_channel(flow, channel)
        flow.worker.faults.fail("outbox.sent", CommitUnknownError(), when="after")
        await flow.receive("standard", "hi")

        async with asyncio.timeout(2):  # every tenth round looks anyway, which would be three seconds
            await flow.until(lambda: len(channel.items) == 2)
        assert [item.body for item in channel.items] == ["one", "two"]


async def test_no_reply_is_posted_where_none_is_wanted_and_none_that_is_blank() -> None:
    async with Flow({"agent": an_agent()}, model=ScriptedModel("hello"), channels={"standard": "none"}) as flow:
        await flow.outcome(await flow.receive("standard", "hi"))
        assert await status(flow) == []
    async with Flow({"agent": an_agent()}, model=ScriptedModel("  \n ")) as flow:
        assert (await flow.outcome(await flow.receive("standard", "hi"))).status == "completed"
        assert await status(flow) == []
