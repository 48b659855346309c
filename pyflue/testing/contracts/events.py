"""What a store promises about numbered events."""

from __future__ import annotations

import asyncio

from pyflue.events import ReplySent, ToolFinished, ToolStarted, TurnAnswered, decode_event
from pyflue.messages import Usage
from pyflue.testing.contracts.stage import SECOND, OtherStore, Scene, StoreContract, said


class EventsContract(StoreContract):
    """``Events``, and the numbers that every writing port gives."""

    async def test_events_of_a_dispatch_are_numbered_from_one_without_gaps(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(said("x"), events=(ToolStarted("a", "look"), ToolStarted("b", "look")))
        await turn.settle()

        events = await scene.store.events.read(turn.dispatch_id)

        assert [(event.seq, event.type) for event in events] == [
            (1, "dispatch.accepted"),
            (2, "dispatch.started"),
            (3, "tool.started"),
            (4, "tool.started"),
            (5, "dispatch.settled"),
        ]
        assert {event.stream for event in events} == {turn.dispatch_id}
        assert (await scene.dispatch(turn.dispatch_id)).event_seq == 5

    async def test_events_come_back_as_they_were_with_the_time_of_their_write(self, scene: Scene) -> None:
        turn = await scene.start()
        scene.clock.advance(SECOND)
        written = (
            TurnAnswered(1, 2, "model", "tool_use", Usage(1, 2, 3, 4), "nul \x00 \u2603", ("call_1",), 250),
            ToolFinished("call_1", "look", "unknown", 12),
        )

        await turn.append(events=written)

        events = await scene.store.events.read(turn.dispatch_id, after=2)
        assert tuple(decode_event(event.data) for event in events) == written
        assert {event.at for event in events} == {scene.clock.now()}

    async def test_reading_starts_after_the_number_given_and_stops_at_the_limit(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(events=tuple(ToolStarted(str(n), "look") for n in range(5)))

        assert [event.seq for event in await scene.store.events.read(turn.dispatch_id, after=5)] == [6, 7]
        assert [event.seq for event in await scene.store.events.read(turn.dispatch_id, after=1, limit=2)] == [2, 3]
        assert await scene.store.events.read(turn.dispatch_id, after=7) == []
        assert await scene.store.events.read("dsp_nobody") == []

    async def test_each_dispatch_has_a_stream_of_its_own(self, scene: Scene) -> None:
        first = await scene.start()
        await first.settle()
        await scene.admit()
        second = await scene.begin(first.lease)

        assert [event.seq for event in await scene.store.events.read(first.dispatch_id)] == [1, 2, 3]
        assert [event.seq for event in await scene.store.events.read(second.dispatch_id)] == [1, 2]

    async def test_a_stream_goes_on_after_its_dispatch_settled(self, scene: Scene) -> None:
        turn = await scene.start()
        settled = await turn.settle("completed", scene.draft(), keep=True)
        assert settled.reply is not None

        event = ReplySent(settled.reply.id, "chat", 0, "m1", 1)
        await scene.store.outbox.sent(settled.reply, turn.lease.worker_id, "m1", event)

        [last] = await scene.store.events.read(turn.dispatch_id, after=3)
        assert (last.seq, decode_event(last.data)) == (4, event)

    async def test_numbers_never_skip_for_a_reader_who_follows_concurrent_writers(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        turn = await scene.start()
        settled_reply = scene.draft()
        await turn.append(outbox=(settled_reply,))
        item = await scene.store.outbox.claim(scene.session(), turn.lease.worker_id)
        assert item is not None
        other = await other_store()
        writers_done = asyncio.Event()

        async def write_turns() -> None:
            for n in range(20):
                await turn.append(said("x"), events=(ToolStarted(str(n), "look"), ToolFinished(str(n), "look", "done")))

        async def deliver_and_abort() -> None:
            sent = ReplySent(item.id, "chat", 0, "m1", 1)
            await other.outbox.sent(item, turn.lease.worker_id, "m1", sent)
            await other.ledger.request_abort(turn.dispatch_id)

        async def follow() -> list[int]:
            seen: list[int] = []
            while True:
                finished = writers_done.is_set()
                events = await other.events.read(turn.dispatch_id, after=seen[-1] if seen else 0)
                seen += [event.seq for event in events]
                if finished and not events:
                    return seen
                await asyncio.sleep(0)

        follower = asyncio.create_task(follow())
        await asyncio.gather(write_turns(), deliver_and_abort())
        writers_done.set()

        assert await follower == list(range(1, 2 + 40 + 2 + 1))
