"""What a store promises about replies on their way out."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec import Raw
from msgspec.structs import replace

from pyflue.dispatches import OutboxItem
from pyflue.errors import LeaseLost
from pyflue.events import ReplyDelayed, ReplySent, ReplyUndeliverable
from pyflue.ids import WorkerId
from pyflue.testing.contracts.stage import GRACE, LEASE_TIME, MINUTE, SECOND, OtherStore, Scene, StoreContract, Turn


def sent(item: OutboxItem, receipt: str = "m1") -> ReplySent:
    return ReplySent(item.id, item.channel, item.part, receipt, item.attempts)


def delayed(item: OutboxItem) -> ReplyDelayed:
    return ReplyDelayed(item.id, item.channel, 60_000, "busy")


def given_up(item: OutboxItem) -> ReplyUndeliverable:
    return ReplyUndeliverable(item.id, item.channel, "gone")


async def replying(scene: Scene, *bodies: str, thread: str = "one") -> Turn:
    """Start a turn in ``thread`` that has put replies in the outbox."""
    turn = await scene.start(thread)
    await turn.append(outbox=tuple(scene.draft(body) for body in bodies))
    return turn


async def take(scene: Scene, worker: WorkerId, thread: str = "one") -> OutboxItem:
    item = await scene.store.outbox.claim(scene.session(thread), worker)
    assert item is not None, "a reply was expected to be sendable"
    return item


class OutboxOrderContract(StoreContract):
    """``Outbox.claim`` and ``claim_due``: which reply goes next, and to whom."""

    async def test_a_reply_comes_back_as_it_was_written(self, scene: Scene) -> None:
        turn = await scene.start()
        draft = replace(
            scene.draft("nul \x00 \u2603" + "x" * 100_000),
            destination=Raw(b'{"z": "1.0",  "a": "C\\u00e9"}'),
            call_id="call_1",
            part=2,
        )

        await turn.append(outbox=(draft,))

        item = await scene.store.views.outbox_item(draft.id)
        assert item is not None
        assert (item.body, item.destination, item.channel) == (draft.body, draft.destination, draft.channel)
        assert (item.call_id, item.part, item.idempotency_key) == ("call_1", 2, draft.idempotency_key)
        assert (item.session_id, item.dispatch_id) == (scene.session(), turn.dispatch_id)
        assert (item.status, item.attempts, item.lease_token, item.recovered) == ("pending", 0, 0, False)
        assert item.available_at == item.created_at == scene.clock.now()

    async def test_the_lowest_unsent_reply_is_taken_and_its_sending_committed(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        turn = await replying(scene, "one", "two")

        item = await take(scene, turn.lease.worker_id)

        assert (item.body, item.status, item.attempts, item.lease_token) == ("one", "sending", 1, 1)
        assert not item.recovered
        assert await (await other_store()).views.outbox_item(item.id) == item

    async def test_nobody_takes_a_reply_that_somebody_alive_is_sending_nor_the_one_behind_it(
        self, scene: Scene
    ) -> None:
        turn = await replying(scene, "one", "two")
        await take(scene, turn.lease.worker_id)

        for worker in (turn.lease.worker_id, await scene.worker()):
            assert await scene.store.outbox.claim(scene.session(), worker) is None
            assert await scene.store.outbox.claim_due(worker, 10) == []
        assert [item.status for item in await scene.store.views.outbox()] == ["sending", "pending"]

    async def test_a_session_without_replies_has_none_to_take(self, scene: Scene) -> None:
        turn = await scene.start()

        assert await scene.store.outbox.claim(scene.session(), turn.lease.worker_id) is None
        assert await scene.store.outbox.claim(scene.session("nowhere"), turn.lease.worker_id) is None
        assert await scene.store.outbox.claim_due(turn.lease.worker_id, 10) == []

    async def test_replies_of_a_session_keep_one_order_across_its_dispatches(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.settle("completed", scene.draft("first"), scene.draft("second"))
        await scene.admit()
        await (await scene.begin(turn.lease)).settle("completed", scene.draft("third"))

        bodies: list[str] = []
        item = await scene.store.outbox.claim(scene.session(), turn.lease.worker_id)
        while item is not None:
            bodies.append(item.body)
            item = await scene.store.outbox.sent(item, turn.lease.worker_id, "m", sent(item))

        assert bodies == ["first", "second", "third"]

    async def test_a_reply_that_must_wait_holds_back_the_ones_behind_it(self, scene: Scene) -> None:
        turn = await replying(scene, "one", "two")
        worker = turn.lease.worker_id
        item = await take(scene, worker)
        await scene.store.outbox.retry(item, MINUTE, "busy", delayed(item), ambiguous=False)

        assert await scene.store.outbox.claim(scene.session(), worker) is None
        assert await scene.store.outbox.claim_due(worker, 10) == []

        scene.clock.advance(MINUTE)
        assert (await take(scene, worker)).id == item.id

    async def test_due_replies_are_taken_one_for_each_session_up_to_the_limit(self, scene: Scene) -> None:
        worker = await scene.worker()
        for thread in ("a", "b", "c"):
            await replying(scene, f"{thread}1", f"{thread}2", thread=thread)
            scene.clock.advance(SECOND)

        first = await scene.store.outbox.claim_due(worker, 2)
        rest = await scene.store.outbox.claim_due(worker, 2)

        assert [item.body for item in first] == ["a1", "b1"]
        assert [item.body for item in rest] == ["c1"]
        assert await scene.store.outbox.claim_due(worker, 2) == []

    async def test_a_draining_worker_still_sends_and_a_dead_one_does_not(self, scene: Scene) -> None:
        await replying(scene, "one")
        await replying(scene, "two", "three", thread="other")
        draining, dead = await scene.worker(), await scene.worker()
        sending = await scene.store.outbox.claim(scene.session("other"), dead)
        assert sending is not None
        await scene.store.fleet.drain(draining)
        await scene.store.fleet.retire(dead)

        for worker in (dead, scene.ids.worker()):
            assert await scene.store.outbox.claim(scene.session(), worker) is None
            assert await scene.store.outbox.claim_due(worker, 10) == []
        assert await scene.store.outbox.sent(sending, dead, "m1", sent(sending)) is None, "it takes no next one"
        assert await scene.store.outbox.claim(scene.session(), draining) is not None

    async def test_of_many_senders_at_once_each_reply_goes_to_one(self, scene: Scene, other_store: OtherStore) -> None:
        stores = [scene.store, await other_store()]
        workers = [await scene.worker() for _ in range(4)]
        for n in range(6):
            await replying(scene, "one", "two", thread=f"thread {n}")

        async def grab(n: int) -> list[OutboxItem]:
            mine = await stores[n % 2].outbox.claim_due(workers[n], 6)
            one = await stores[n % 2].outbox.claim(scene.session("thread 0"), workers[n])
            return [*mine, one] if one else mine

        taken = [item for batch in await asyncio.gather(*(grab(n) for n in range(4))) for item in batch]

        assert len(taken) == len({item.session_id for item in taken})
        assert {item.body for item in taken} == {"one"}
        sending = await scene.store.views.outbox(status="sending")
        assert {item.id for item in sending} == {item.id for item in taken}

    async def test_a_reply_whose_key_is_in_the_outbox_already_is_left_out_of_the_write(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(outbox=(scene.draft("one", key="call_1"),))

        await turn.append(outbox=(scene.draft("one again", key="call_1"), scene.draft("two")))
        await turn.settle("completed", scene.draft("and again", key="call_1"))

        items = await scene.store.views.outbox(session_id=scene.session())
        assert [item.body for item in items] == ["one", "two"]
        assert (await scene.dispatch(turn.dispatch_id)).status == "completed"


class DeliveryContract(StoreContract):
    """``Outbox.sent``, ``retry`` and ``undeliverable``: how an attempt ends, and what a crash leaves."""

    async def test_a_sent_reply_keeps_the_platforms_receipt_and_is_never_taken_again(self, scene: Scene) -> None:
        turn = await replying(scene, "one")
        item = await take(scene, turn.lease.worker_id)

        following = await scene.store.outbox.sent(item, turn.lease.worker_id, "m1", sent(item))

        assert following is None
        stored = await scene.store.views.outbox_item(item.id)
        assert stored is not None
        assert (stored.status, stored.receipt) == ("sent", "m1")
        assert (await scene.event_types(turn.dispatch_id))[-1] == "reply.sent"
        assert await scene.store.outbox.claim(scene.session(), turn.lease.worker_id) is None

    async def test_marking_one_sent_takes_the_next_at_once(self, scene: Scene) -> None:
        turn = await replying(scene, "one", "two")
        item = await take(scene, turn.lease.worker_id)

        following = await scene.store.outbox.sent(item, turn.lease.worker_id, "m1", sent(item))

        assert following is not None
        assert (following.body, following.status, following.attempts) == ("two", "sending", 1)
        assert await scene.store.views.outbox_item(following.id) == following

    async def test_giving_up_on_one_frees_the_next(self, scene: Scene) -> None:
        turn = await replying(scene, "one", "two")
        item = await take(scene, turn.lease.worker_id)

        following = await scene.store.outbox.undeliverable(item, turn.lease.worker_id, "gone", given_up(item))

        assert following is not None
        assert following.body == "two"
        stored = await scene.store.views.outbox_item(item.id)
        assert stored is not None
        assert (stored.status, stored.error) == ("undeliverable", "gone")
        assert (await scene.event_types(turn.dispatch_id))[-1] == "reply.undeliverable"

    @pytest.mark.parametrize("ambiguous", [False, True])
    async def test_a_retry_waits_counts_on_and_remembers_whether_the_platform_may_have_it(
        self, scene: Scene, ambiguous: bool
    ) -> None:
        turn = await replying(scene, "one")
        item = await take(scene, turn.lease.worker_id)

        await scene.store.outbox.retry(item, MINUTE, "busy", delayed(item), ambiguous=ambiguous)

        stored = await scene.store.views.outbox_item(item.id)
        assert stored is not None
        assert (stored.status, stored.attempts, stored.error) == ("pending", 1, "busy")
        assert stored.available_at == scene.clock.now() + MINUTE
        assert (await scene.event_types(turn.dispatch_id))[-1] == "reply.delayed"
        scene.clock.advance(MINUTE)
        again = await take(scene, await scene.worker())
        assert (again.attempts, again.lease_token, again.recovered) == (2, 2, ambiguous)

    async def test_a_reply_whose_worker_died_while_sending_is_recovered(self, scene: Scene) -> None:
        turn = await replying(scene, "one")
        item = await take(scene, turn.lease.worker_id)
        successor = await scene.worker()
        scene.clock.advance(LEASE_TIME)
        await scene.store.fleet.heartbeat(successor, LEASE_TIME)
        scene.clock.advance(SECOND)
        assert await scene.store.outbox.claim(scene.session(), successor) is None

        assert await scene.store.fleet.reap(GRACE) == [turn.lease.worker_id]

        [recovered] = await scene.store.outbox.claim_due(successor, 10)
        assert recovered.id == item.id
        assert (recovered.attempts, recovered.lease_token, recovered.recovered) == (2, 2, True)

    async def test_a_worker_that_leaves_in_order_leaves_its_sending_reply_to_be_recovered(self, scene: Scene) -> None:
        turn = await replying(scene, "one")
        item = await take(scene, turn.lease.worker_id)

        await scene.store.fleet.retire(turn.lease.worker_id)

        recovered = await take(scene, await scene.worker())
        assert (recovered.id, recovered.recovered) == (item.id, True)

    async def test_whoever_lost_a_reply_can_no_longer_say_how_it_ended(self, scene: Scene) -> None:
        turn = await replying(scene, "one", "two")
        lost, late = await take(scene, turn.lease.worker_id), turn.lease.worker_id
        await scene.store.fleet.retire(late)
        held = await take(scene, await scene.worker())
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await scene.store.outbox.sent(lost, late, "m1", sent(lost))
        with pytest.raises(LeaseLost):
            await scene.store.outbox.retry(lost, timedelta(), "busy", delayed(lost), ambiguous=True)
        with pytest.raises(LeaseLost):
            await scene.store.outbox.undeliverable(lost, late, "gone", given_up(lost))

        assert await scene.snapshot(turn) == before
        assert await scene.store.views.outbox_item(held.id) == held

    async def test_a_final_reply_never_changes(self, scene: Scene) -> None:
        turn = await replying(scene, "one")
        worker = turn.lease.worker_id
        item = await take(scene, worker)
        await scene.store.outbox.sent(item, worker, "m1", sent(item))
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await scene.store.outbox.sent(item, worker, "m2", sent(item))
        with pytest.raises(LeaseLost):
            await scene.store.outbox.retry(item, timedelta(), "busy", delayed(item), ambiguous=False)

        assert await scene.snapshot(turn) == before

    async def test_sending_needs_no_lease_on_the_mailbox_and_leaves_it_alone(self, scene: Scene) -> None:
        turn = await replying(scene, "one")
        other = await scene.worker()

        item = await take(scene, other)
        await scene.store.outbox.sent(item, other, "m1", sent(item))

        assert (await scene.store.ledger.mailbox(turn.lease)).unsettled == 1
        await turn.settle()


class OutboxContract(OutboxOrderContract, DeliveryContract):
    """Everything an ``Outbox`` promises."""
