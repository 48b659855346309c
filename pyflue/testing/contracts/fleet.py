"""What a store promises about worker processes, and about the work of dead ones."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from pyflue.dispatches import WorkerRow
from pyflue.entries import Entry
from pyflue.errors import LeaseLost
from pyflue.ids import SessionId, WorkerId
from pyflue.stores.protocol import Settlement, Store, TurnWrite
from pyflue.testing.contracts.stage import (
    AGENTS,
    GRACE,
    LEASE_TIME,
    LIMITS,
    MINUTE,
    SECOND,
    OtherStore,
    Scene,
    StoreContract,
    said,
)

UNAVAILABLE_AFTER = timedelta(minutes=10)


async def row_of(store: Store, worker_id: WorkerId) -> WorkerRow:
    [row] = [row for row in await store.views.workers() if row.id == worker_id]
    return row


class HeartbeatContract(StoreContract):
    """``Fleet.register``, ``heartbeat``, ``drain`` and ``retire``."""

    async def test_a_registered_worker_is_live_for_the_lease_time(self, scene: Scene) -> None:
        worker = await scene.worker("echo", "other")

        row = await row_of(scene.store, worker)

        now = scene.clock.now()
        assert (row.status, row.agents, row.host, row.pid) == ("live", ("echo", "other"), "host", 1)
        assert (row.started_at, row.heartbeat_at, row.expires_at) == (now, now, now + LEASE_TIME)

    async def test_a_heartbeat_extends_its_own_worker_and_no_other(self, scene: Scene) -> None:
        beating, silent = await scene.worker(), await scene.worker()
        before = await row_of(scene.store, silent)
        scene.clock.advance(MINUTE)

        heartbeat = await scene.store.fleet.heartbeat(beating, LEASE_TIME)

        assert heartbeat.alive
        row = await row_of(scene.store, beating)
        assert (row.heartbeat_at, row.expires_at) == (scene.clock.now(), scene.clock.now() + LEASE_TIME)
        assert await row_of(scene.store, silent) == before

    async def test_a_lease_lives_as_long_as_its_owner_beats(self, scene: Scene) -> None:
        turn = await scene.start()
        rescuer = await scene.worker()

        for _ in range(10):
            scene.clock.advance(LEASE_TIME - SECOND)
            for worker in (turn.lease.worker_id, rescuer):
                await scene.store.fleet.heartbeat(worker, LEASE_TIME)
            assert await scene.store.fleet.reap(GRACE) == []
            assert await scene.store.fleet.free(10) == []

        assert await turn.append(said("still mine")) == 1

    async def test_a_dead_or_unknown_worker_is_told_so_and_not_revived(self, scene: Scene) -> None:
        dead = await scene.worker()
        await scene.store.fleet.retire(dead)
        before = await row_of(scene.store, dead)
        scene.clock.advance(SECOND)

        assert not (await scene.store.fleet.heartbeat(dead, LEASE_TIME)).alive
        assert not (await scene.store.fleet.heartbeat(scene.ids.worker(), LEASE_TIME)).alive
        assert await row_of(scene.store, dead) == before

    async def test_a_heartbeat_tells_of_aborts_asked_for_in_the_sessions_it_holds(self, scene: Scene) -> None:
        mine = await scene.start("one")
        queued_behind = await scene.admit("one")
        await scene.admit("one")
        elsewhere = await scene.start("two")
        for dispatch_id in (mine.dispatch_id, queued_behind.dispatch_id, elsewhere.dispatch_id):
            await scene.store.ledger.request_abort(dispatch_id)

        heartbeat = await scene.store.fleet.heartbeat(mine.lease.worker_id, LEASE_TIME)
        assert set(heartbeat.aborts) == {mine.dispatch_id, queued_behind.dispatch_id}

        await mine.settle("aborted")
        heartbeat = await scene.store.fleet.heartbeat(mine.lease.worker_id, LEASE_TIME)
        assert heartbeat.aborts == (queued_behind.dispatch_id,)

    async def test_a_draining_worker_keeps_what_it_holds(self, scene: Scene) -> None:
        turn = await scene.start()

        await scene.store.fleet.drain(turn.lease.worker_id)

        assert (await row_of(scene.store, turn.lease.worker_id)).status == "draining"
        assert (await scene.store.fleet.heartbeat(turn.lease.worker_id, LEASE_TIME)).alive
        assert await scene.store.fleet.free(10) == []
        assert await turn.append(said("finishing")) == 1

    async def test_a_retiring_worker_gives_its_sessions_back_at_once(self, scene: Scene) -> None:
        turn = await scene.start()

        await scene.store.fleet.retire(turn.lease.worker_id)

        assert (await row_of(scene.store, turn.lease.worker_id)).status == "dead"
        with pytest.raises(LeaseLost):
            await turn.append(said("too late"))
        lease = await scene.lease()
        assert lease.token > turn.lease.token

    async def test_retiring_twice_or_unknown_is_no_error(self, scene: Scene) -> None:
        worker = await scene.worker()

        await scene.store.fleet.retire(worker)
        await scene.store.fleet.retire(worker)
        await scene.store.fleet.retire(scene.ids.worker())

    async def test_registering_again_frees_what_the_worker_held_before(self, scene: Scene) -> None:
        turn = await scene.start()
        row = await row_of(scene.store, turn.lease.worker_id)
        scene.clock.advance(LEASE_TIME + SECOND)
        await scene.store.fleet.reap(GRACE)

        await scene.store.fleet.register(row, LEASE_TIME)

        assert (await row_of(scene.store, row.id)).status == "live"
        with pytest.raises(LeaseLost):
            await turn.append(said("from before"))
        assert await scene.claim(worker=row.id) is not None

    async def test_what_a_lost_answer_left_with_a_worker_can_be_disowned(self, scene: Scene) -> None:
        worker = await scene.worker()
        known, stray = await scene.start("known", worker), await scene.start("stray", worker)
        other = await scene.start("other")
        await known.append(outbox=(scene.draft("known"),))
        await stray.append(outbox=(scene.draft("stray"),))
        items = await scene.store.outbox.claim_due(worker, 10)
        kept = [item.id for item in items if item.session_id == known.lease.session_id]

        freed = await scene.store.fleet.disown(worker, [known.lease.session_id], kept)

        assert freed == [stray.lease.session_id]
        with pytest.raises(LeaseLost):
            await stray.append(said("x"))
        assert await known.append(said("x")) == 1
        assert await other.append(said("x")) == 1
        assert await scene.claim("stray") is not None
        [recovered] = await scene.store.outbox.claim_due(await scene.worker(), 10)
        assert (recovered.body, recovered.recovered, recovered.attempts) == ("stray", True, 2)


class RescueContract(StoreContract):
    """``Fleet.reap``, ``free`` and ``unclaimable``.

    A store whose liveness lock can be let go without ending a process overrides ``drop_liveness``.
    """

    async def drop_liveness(self, store: Store, worker_id: WorkerId) -> None:
        """Let the liveness lock of a worker go as its process's death would; skips where only a real death can."""
        pytest.skip(f"{type(store).__name__} shows this with real processes")

    async def test_only_workers_whose_lease_ran_out_are_dead(self, scene: Scene) -> None:
        late = await scene.worker()
        scene.clock.advance(SECOND)
        current = await scene.worker()
        scene.clock.advance(LEASE_TIME)

        assert await scene.store.fleet.reap(GRACE) == [late]

        assert (await row_of(scene.store, late)).status == "dead"
        assert (await row_of(scene.store, current)).status == "live"
        assert await scene.store.fleet.reap(GRACE) == []

    async def test_a_draining_worker_can_die_too(self, scene: Scene) -> None:
        worker = await scene.worker()
        await scene.store.fleet.drain(worker)
        scene.clock.advance(LEASE_TIME + SECOND)

        assert await scene.store.fleet.reap(GRACE) == [worker]

    async def test_nobody_is_dead_in_an_empty_store(self, scene: Scene) -> None:
        assert await scene.store.fleet.reap(GRACE) == []
        assert await scene.store.fleet.free(10) == []

    async def test_a_free_liveness_lock_kills_only_after_the_grace_time(self, scene: Scene) -> None:
        worker = await scene.worker()
        await self.drop_liveness(scene.store, worker)
        scene.clock.advance(GRACE)
        assert await scene.store.fleet.reap(GRACE) == []

        scene.clock.advance(SECOND)

        assert await scene.store.fleet.reap(GRACE) == [worker]

    async def test_a_heartbeat_takes_a_dropped_liveness_lock_back(self, scene: Scene) -> None:
        worker = await scene.worker()
        await self.drop_liveness(scene.store, worker)
        await scene.store.fleet.heartbeat(worker, LEASE_TIME)
        scene.clock.advance(GRACE + SECOND)

        assert await scene.store.fleet.reap(GRACE) == []

    async def test_a_held_liveness_lock_outlasts_the_grace_time(self, scene: Scene) -> None:
        await scene.worker()
        scene.clock.advance(GRACE + SECOND)

        assert await scene.store.fleet.reap(GRACE) == []

    async def test_sessions_of_the_dead_are_freed_in_batches_and_due(self, scene: Scene) -> None:
        worker, survivor = await scene.worker(), await scene.worker()
        for n in range(5):
            await scene.start(f"thread {n}", worker)
        safe = await scene.start("safe", survivor)
        scene.clock.advance(LEASE_TIME)
        await scene.store.fleet.heartbeat(survivor, LEASE_TIME)
        scene.clock.advance(SECOND)
        assert await scene.store.fleet.free(10) == []
        await scene.store.fleet.reap(GRACE)

        batches = [await scene.store.fleet.free(2) for _ in range(4)]

        assert [len(batch) for batch in batches] == [2, 2, 1, 0]
        assert {session for batch in batches for session in batch} == {scene.session(f"thread {n}") for n in range(5)}
        leases = await scene.store.ledger.claim_due(survivor, AGENTS, 10)
        assert [lease.token for lease in leases] == [3] * 5
        assert await safe.append(said("undisturbed")) == 1

    async def test_a_worker_that_was_only_asleep_can_write_nothing_once_its_session_was_freed(
        self, scene: Scene
    ) -> None:
        turn = await scene.start()
        scene.clock.advance(LEASE_TIME + SECOND)
        await scene.store.fleet.reap(GRACE)
        assert await turn.append(said("nobody has taken it yet")) == 1

        await scene.store.fleet.free(10)

        before = await scene.snapshot(turn)
        zombie: Entry = said("zombie")
        for write in (turn.append(zombie), turn.park(), turn.settle("completed", scene.draft()), turn.release()):
            with pytest.raises(LeaseLost):
                await write
        assert await scene.snapshot(turn) == before

    async def test_many_rescuers_free_each_session_once(self, scene: Scene, other_store: OtherStore) -> None:
        worker = await scene.worker()
        await scene.store.ledger.admit([scene.admission(f"thread {n}") for n in range(20)], LIMITS)
        held = await scene.store.ledger.claim_due(worker, AGENTS, 20)
        stores = [scene.store, await other_store()]
        scene.clock.advance(LEASE_TIME + SECOND)

        reaped = await asyncio.gather(*(store.fleet.reap(GRACE) for store in stores))
        batches = await asyncio.gather(*(stores[n % 2].fleet.free(10) for n in range(4)))
        freed: list[SessionId] = [session for batch in batches for session in batch]
        while more := await scene.store.fleet.free(10):
            freed += more

        assert {dead for batch in reaped for dead in batch} == {worker}
        assert sorted(freed) == sorted(lease.session_id for lease in held)
        assert await scene.store.journal.head(freed[0]) == (0, 2)

    async def test_work_no_worker_knows_the_agent_of_is_found_after_a_while(self, scene: Scene) -> None:
        receipt = await scene.admit("one", agent="other")
        await scene.admit("two", agent="echo")
        worker = await scene.worker("echo")
        scene.clock.advance(UNAVAILABLE_AFTER - SECOND)
        await scene.store.fleet.heartbeat(worker, LEASE_TIME)
        assert await scene.store.fleet.unclaimable(UNAVAILABLE_AFTER, 10, worker) == []

        scene.clock.advance(SECOND)
        gone = await scene.worker("echo")
        await scene.store.fleet.retire(gone)
        assert await scene.store.fleet.unclaimable(UNAVAILABLE_AFTER, 10, gone) == [], "only a live worker takes it"
        [lease] = await scene.store.fleet.unclaimable(UNAVAILABLE_AFTER, 10, worker)

        assert (lease.session_id, lease.worker_id, lease.token) == (scene.session("one", "other"), worker, 1)
        await scene.store.ledger.settle(lease, Settlement(TurnWrite(receipt.dispatch_id, 0), "failed"))
        assert (await scene.dispatch(receipt.dispatch_id)).status == "failed"
        assert await scene.store.fleet.unclaimable(UNAVAILABLE_AFTER, 10, worker) == []

    async def test_an_agent_offered_lately_is_waited_for_even_if_its_worker_died(self, scene: Scene) -> None:
        await scene.admit("one", agent="other")
        scene.clock.advance(UNAVAILABLE_AFTER)
        gone, worker = await scene.worker("other"), await scene.worker("echo")
        await scene.store.fleet.retire(gone)
        scene.clock.advance(UNAVAILABLE_AFTER - SECOND)
        assert await scene.store.fleet.unclaimable(UNAVAILABLE_AFTER, 10, worker) == []

        scene.clock.advance(SECOND)

        assert len(await scene.store.fleet.unclaimable(UNAVAILABLE_AFTER, 10, worker)) == 1

    async def test_unclaimable_work_is_taken_up_to_the_limit_and_never_twice(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        await scene.store.ledger.admit([scene.admission(f"t{n}", agent="other") for n in range(5)], LIMITS)
        scene.clock.advance(UNAVAILABLE_AFTER)
        worker, stores = await scene.worker("echo"), [scene.store, await other_store()]

        assert len(await scene.store.fleet.unclaimable(UNAVAILABLE_AFTER, 2, worker)) == 2
        batches = await asyncio.gather(*(store.fleet.unclaimable(UNAVAILABLE_AFTER, 10, worker) for store in stores))

        taken = [lease.session_id for batch in batches for lease in batch]
        assert len(taken) == len(set(taken)) == 3


class FleetContract(HeartbeatContract, RescueContract):
    """Everything a ``Fleet`` promises."""
