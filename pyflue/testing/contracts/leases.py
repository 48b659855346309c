"""What a store promises about who may work a mailbox."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from pyflue.dispatches import Lease
from pyflue.entries import SummaryEntry
from pyflue.errors import LeaseLost
from pyflue.ids import WorkerId
from pyflue.stores.protocol import SessionQuery, Store
from pyflue.testing.contracts.stage import (
    AGENTS,
    BUDGET,
    LIMITS,
    MINUTE,
    SECOND,
    OtherStore,
    Scene,
    StoreContract,
    said,
)


class LeaseContract(StoreContract):
    """``Ledger.claim``, ``claim_due``, ``mailbox`` and ``release``."""

    async def test_a_claim_takes_a_due_mailbox_under_the_next_token(self, scene: Scene) -> None:
        await scene.admit()
        worker = await scene.worker()

        lease = await scene.lease(worker=worker)

        assert lease == Lease(scene.session(), scene.address(), worker, token=1, head=0, summary_seq=0)
        assert await scene.store.journal.head(scene.session()) == (0, 1)
        assert await scene.due_in() is not None

    async def test_a_held_mailbox_cannot_be_claimed_and_others_can(self, scene: Scene) -> None:
        await scene.admit("one")
        await scene.admit("two")
        worker = await scene.worker()
        await scene.lease("one", worker)

        assert await scene.claim("one") is None
        assert await scene.claim("one", worker) is None
        assert await scene.claim("two") is not None

    async def test_nothing_is_claimed_where_nothing_is_due(self, scene: Scene) -> None:
        assert await scene.claim("never heard of") is None

        turn = await scene.start()
        await turn.settle()
        await turn.release()

        assert await scene.claim() is None
        assert await scene.store.ledger.claim_due(await scene.worker(), AGENTS, 10) == []

    async def test_a_worker_claims_only_agents_it_knows(self, scene: Scene) -> None:
        await scene.admit("one", agent="echo")
        worker = await scene.worker()

        assert await scene.store.ledger.claim(scene.session(), worker, frozenset({"other"})) is None
        assert await scene.store.ledger.claim_due(worker, frozenset({"other"}), 10) == []
        assert await scene.store.ledger.claim(scene.session(), worker, frozenset({"echo"})) is not None

    async def test_only_a_live_worker_claims(self, scene: Scene) -> None:
        await scene.admit()
        draining, dead = await scene.worker(), await scene.worker()
        await scene.store.fleet.drain(draining)
        await scene.store.fleet.retire(dead)

        for worker in (draining, dead, scene.ids.worker()):
            assert await scene.claim(worker=worker) is None
            assert await scene.store.ledger.claim_due(worker, AGENTS, 10) == []

    async def test_due_mailboxes_are_taken_oldest_first_up_to_the_limit(self, scene: Scene) -> None:
        c = await scene.start("c")
        for thread in ("b", "a"):
            await scene.admit(thread)
            scene.clock.advance(SECOND)
        await c.park(timedelta())
        await c.release()
        scene.clock.advance(SECOND)
        worker = await scene.worker()

        first = await scene.store.ledger.claim_due(worker, AGENTS, 2)
        rest = await scene.store.ledger.claim_due(worker, AGENTS, 2)

        assert [lease.address.instance_id for lease in first] == ["b", "a"]
        assert [lease.address.instance_id for lease in rest] == ["c"]
        assert [lease.token for lease in first + rest] == [1, 1, 2]

    async def test_one_mailbox_is_taken_once_however_much_waits_in_it(self, scene: Scene) -> None:
        for thread in ("one", "two", "one", "one"):
            await scene.admit(thread)

        leases = await scene.store.ledger.claim_due(await scene.worker(), AGENTS, 10)

        assert sorted(lease.address.instance_id for lease in leases) == ["one", "two"]

    async def test_of_many_claims_at_once_exactly_one_wins(self, scene: Scene, other_store: OtherStore) -> None:
        stores = [scene.store, await other_store()]
        workers = [await scene.worker() for _ in range(4)]
        for round_ in range(5):
            thread = f"thread {round_}"
            await scene.admit(thread)

            won = await asyncio.gather(
                *(stores[n % 2].ledger.claim(scene.session(thread), workers[n % 4], AGENTS) for n in range(8)),
            )

            assert sum(lease is not None for lease in won) == 1

    async def test_of_many_rescuers_at_once_each_mailbox_goes_to_one(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        stores = [scene.store, await other_store()]
        await scene.store.ledger.admit([scene.admission(f"thread {n}") for n in range(20)], LIMITS)
        workers = [await scene.worker() for _ in range(4)]

        async def rescue(n: int) -> list[Lease]:
            return await stores[n % 2].ledger.claim_due(workers[n], AGENTS, 10)

        taken = [lease for batch in await asyncio.gather(*(rescue(n) for n in range(4))) for lease in batch]
        while more := await scene.store.ledger.claim_due(workers[0], AGENTS, 10):
            taken += more

        assert len(taken) == len({lease.session_id for lease in taken}) == 20

    async def test_the_mailbox_shows_its_counter_and_the_lowest_unsettled_dispatch(self, scene: Scene) -> None:
        first = await scene.admit()
        second = await scene.admit()
        lease = await scene.lease()

        mailbox = await scene.store.ledger.mailbox(lease)
        assert mailbox.head == await scene.dispatch(first.dispatch_id)
        assert (mailbox.seen, mailbox.unsettled, mailbox.now) == (2, 2, scene.clock.now())

        await (await scene.begin(lease)).settle()
        mailbox = await scene.store.ledger.mailbox(lease)
        assert mailbox.head == await scene.dispatch(second.dispatch_id)
        assert mailbox.unsettled == 1

    async def test_an_empty_mailbox_has_no_head(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.settle()

        mailbox = await scene.store.ledger.mailbox(turn.lease)

        assert (mailbox.seen, mailbox.head, mailbox.unsettled) == (1, None, 0)

    async def test_the_mailbox_is_closed_to_a_stale_token(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.take_over(turn)

        with pytest.raises(LeaseLost):
            await scene.store.ledger.mailbox(turn.lease)

    async def test_a_lease_knows_the_head_and_the_last_summary_of_its_journal(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(said("a"), SummaryEntry("so far"), said("b"))
        await turn.append(SummaryEntry("so far, again"))
        await turn.append(said("c"))

        lease = await scene.take_over(turn)

        assert (lease.token, lease.head, lease.summary_seq) == (3, 5, 4)

    async def test_a_parked_head_blocks_what_is_behind_it(self, scene: Scene) -> None:
        turn = await scene.start()
        later = await scene.admit()
        await turn.park(MINUTE)
        assert await turn.release()

        assert await scene.due_in() == MINUTE
        assert await scene.claim() is None
        assert await scene.store.ledger.claim_due(await scene.worker(), AGENTS, 10) == []

        scene.clock.advance(MINUTE)
        mailbox = await scene.store.ledger.mailbox(await scene.lease())
        assert mailbox.head is not None
        assert (mailbox.head.id, mailbox.unsettled) == (turn.dispatch_id, 2)
        assert (await scene.dispatch(later.dispatch_id)).status == "queued"

    async def test_releasing_an_empty_mailbox_makes_it_due_never_until_the_next_admission(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.settle()

        assert await turn.release()

        assert await scene.due_in() is None
        await scene.admit()
        lease = await scene.lease()
        assert lease.token == turn.lease.token + 1

    async def test_releasing_with_work_left_makes_it_due_when_its_head_is(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.admit()
        scene.clock.advance(SECOND)

        await turn.settle()
        assert await turn.release()

        assert await scene.due_in() == -SECOND
        assert await scene.claim() is not None

    async def test_a_release_is_refused_when_something_arrived_since_the_mailbox_was_read(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.settle()
        mailbox = await scene.store.ledger.mailbox(turn.lease)
        await scene.admit()

        assert not await scene.store.ledger.release(turn.lease, mailbox.seen)

        assert await scene.claim() is None
        mailbox = await scene.store.ledger.mailbox(turn.lease)
        assert mailbox.head is not None
        assert mailbox.seen == 2

    async def test_a_release_under_a_stale_token_changes_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        mailbox = await scene.store.ledger.mailbox(turn.lease)
        await scene.take_over(turn)
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await scene.store.ledger.release(turn.lease, mailbox.seen)

        assert await scene.snapshot(turn) == before

    async def test_a_lease_that_was_given_back_writes_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        mailbox = await scene.store.ledger.mailbox(turn.lease)
        assert await scene.store.ledger.release(turn.lease, mailbox.seen)
        before = await scene.snapshot(turn)

        for late in (
            turn.append(said("late")),
            turn.park(),
            turn.settle("completed", scene.draft()),
            scene.store.ledger.begin(turn.lease, turn.write(said("late")), BUDGET),
            scene.store.steps.put(turn.lease, "call_1", "charge", b"1"),
            scene.store.ledger.mailbox(turn.lease),
            scene.store.ledger.release(turn.lease, mailbox.seen),
        ):
            with pytest.raises(LeaseLost):
                await late
        assert await scene.snapshot(turn) == before
        assert await scene.store.steps.get("call_1", "charge") is None

    async def test_a_message_that_arrives_while_its_mailbox_is_released_is_never_stranded(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        front, worker = await other_store(), await scene.worker()
        threads = [f"thread {n}" for n in range(10)]
        for thread in threads:
            await scene.admit(thread)

        async def send(thread: str) -> None:
            for _ in range(3):
                await front.ledger.admit([scene.admission(thread)], LIMITS)

        drains = (self._drain(scene.store, scene, thread, worker) for thread in threads)
        await asyncio.gather(*(send(thread) for thread in threads), *drains)

        for row in await scene.store.views.sessions(SessionQuery()):
            assert row.lease_owner is None
            assert (row.unsettled == 0) == (row.due_at is None)

    async def _drain(self, store: Store, scene: Scene, thread: str, worker: WorkerId) -> None:
        lease = await store.ledger.claim(scene.session(thread), worker, AGENTS)
        assert lease is not None
        while True:
            mailbox = await store.ledger.mailbox(lease)
            if mailbox.head is not None:
                await (await scene.begin(lease)).settle()
            elif await store.ledger.release(lease, mailbox.seen):
                return
