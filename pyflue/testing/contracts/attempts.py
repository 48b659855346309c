"""What a store promises about attempts, parking and aborts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pyflue.entries import AdvisoryEntry
from pyflue.errors import LeaseLost, StoreError
from pyflue.events import DispatchParked
from pyflue.stores.protocol import Settlement, TurnWrite
from pyflue.testing.contracts.stage import BUDGET, MINUTE, SECOND, Scene, StoreContract, said


class AttemptContract(StoreContract):
    """``Ledger.begin`` and ``park``, and what a turn's progress does to the attempt count."""

    async def test_the_first_attempt_stamps_start_and_deadline(self, scene: Scene) -> None:
        receipt = await scene.admit()
        lease = await scene.lease()
        scene.clock.advance(SECOND)

        returned = await scene.store.ledger.begin(lease, TurnWrite(receipt.dispatch_id, 0), timedelta(minutes=5))

        now = scene.clock.now()
        assert returned == await scene.dispatch(receipt.dispatch_id)
        assert (returned.status, returned.attempts) == ("running", 1)
        assert (returned.started_at, returned.deadline_at) == (now, now + timedelta(minutes=5))

    async def test_later_attempts_count_and_keep_start_and_deadline(self, scene: Scene) -> None:
        turn = await scene.start()
        first = await scene.dispatch(turn.dispatch_id)

        second = await scene.begin(await scene.take_over(turn))

        row = await scene.dispatch(second.dispatch_id)
        assert (row.id, row.status, row.attempts) == (first.id, "running", 2)
        assert (row.started_at, row.deadline_at) == (first.started_at, first.deadline_at)

    async def test_what_the_start_of_an_attempt_writes_is_in_the_journal_and_is_no_progress(self, scene: Scene) -> None:
        await scene.admit()
        turn = await scene.begin(await scene.lease(), said("hello"))

        assert (await scene.dispatch(turn.dispatch_id)).attempts == 1
        assert await scene.store.journal.head(scene.session()) == (1, 1)
        assert await scene.event_types(turn.dispatch_id) == ["dispatch.accepted", "dispatch.started"]

    async def test_progress_starts_the_attempt_count_again(self, scene: Scene) -> None:
        turn = await scene.start()

        await turn.append(said("an answer"))

        assert (await scene.dispatch(turn.dispatch_id)).attempts == 0
        again = await scene.begin(await scene.take_over(turn))
        assert (await scene.dispatch(again.dispatch_id)).attempts == 1

    async def test_entries_kept_in_a_store_of_the_agents_own_are_progress_too(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.store.journal.append(turn.lease, TurnWrite(turn.dispatch_id, 0, kept_elsewhere=1))

        assert (await scene.dispatch(turn.dispatch_id)).attempts == 0

    async def test_a_write_without_entries_or_without_progress_keeps_the_attempt_count(self, scene: Scene) -> None:
        turn = await scene.start()

        await turn.append(events=(DispatchParked("busy", 1),))
        await scene.store.journal.append(
            turn.lease, TurnWrite(turn.dispatch_id, 0, (AdvisoryEntry("retry", "asked again"),), progress=False)
        )

        assert (await scene.dispatch(turn.dispatch_id)).attempts == 1

    async def test_beginning_under_a_stale_token_writes_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.take_over(turn)
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await scene.store.ledger.begin(turn.lease, turn.write(said("ghost")), BUDGET)

        assert await scene.snapshot(turn) == before

    async def test_at_most_one_dispatch_of_a_session_runs(self, scene: Scene) -> None:
        turn = await scene.start()
        second = await scene.admit()
        before = await scene.snapshot(turn)

        with pytest.raises(StoreError):
            await scene.store.ledger.begin(turn.lease, TurnWrite(second.dispatch_id, 0, (said("x"),)), BUDGET)

        assert await scene.snapshot(turn) == before
        assert (await scene.dispatch(second.dispatch_id)).status == "queued"

    async def test_a_dispatch_of_another_session_cannot_be_worked_under_this_lease(self, scene: Scene) -> None:
        turn = await scene.start("one")
        foreign = await scene.admit("two")
        before = await scene.snapshot(turn)

        for stranger in (foreign.dispatch_id, scene.ids.dispatch()):
            with pytest.raises(StoreError):
                await scene.store.ledger.begin(turn.lease, TurnWrite(stranger, 0, (said("x"),)), BUDGET)
            with pytest.raises(StoreError):
                await scene.store.ledger.settle(turn.lease, Settlement(TurnWrite(stranger, 0), "completed"))
            with pytest.raises(StoreError):
                await scene.store.journal.append(turn.lease, TurnWrite(stranger, 0, (said("x"),)))

        assert await scene.snapshot(turn) == before
        assert (await scene.dispatch(foreign.dispatch_id)).status == "queued"

    async def test_parking_puts_it_back_for_later_and_gives_the_attempt_back(self, scene: Scene) -> None:
        turn = await scene.start()
        started = await scene.dispatch(turn.dispatch_id)

        await scene.store.ledger.park(
            turn.lease, turn.write(said("note"), events=(DispatchParked("busy", 60_000),)), MINUTE, refund=True
        )

        row = await scene.dispatch(turn.dispatch_id)
        assert (row.status, row.attempts, row.available_at) == ("queued", 0, scene.clock.now() + MINUTE)
        assert (row.started_at, row.deadline_at) == (started.started_at, started.deadline_at)
        assert await scene.store.journal.head(scene.session()) == (1, 1)
        assert (await scene.event_types(turn.dispatch_id))[-1] == "dispatch.parked"

    async def test_parking_without_refund_keeps_the_attempt_and_none_goes_below_zero(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.park(timedelta(), refund=False)
        assert (await scene.dispatch(turn.dispatch_id)).attempts == 1

        await scene.begin(turn.lease)
        await turn.append(said("progress"))
        await turn.park(timedelta(), refund=True)
        assert (await scene.dispatch(turn.dispatch_id)).attempts == 0

    async def test_only_an_attempt_that_runs_is_given_back(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.park(timedelta(), refund=False)
        await turn.park(timedelta(), refund=True)

        assert (await scene.dispatch(turn.dispatch_id)).attempts == 1

    async def test_parking_keeps_the_lease_until_it_is_released(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.park(timedelta())

        assert await scene.claim() is None
        assert await turn.release()
        assert await scene.claim() is not None

    async def test_parking_under_a_stale_token_changes_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.take_over(turn)
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await turn.park()

        assert await scene.snapshot(turn) == before


class AbortContract(StoreContract):
    """``Ledger.request_abort``."""

    async def test_an_abort_request_is_stamped_and_leaves_the_status(self, scene: Scene) -> None:
        receipt = await scene.admit()

        returned = await scene.store.ledger.request_abort(receipt.dispatch_id)

        assert returned == await scene.dispatch(receipt.dispatch_id)
        assert returned is not None
        assert (returned.status, returned.abort_requested_at) == ("queued", scene.clock.now())
        assert (await scene.event_types(receipt.dispatch_id))[-1] == "dispatch.abort_requested"

    async def test_only_the_dispatch_asked_for_is_stamped(self, scene: Scene) -> None:
        first, second, elsewhere = await scene.admit(), await scene.admit(), await scene.admit("two")

        await scene.store.ledger.request_abort(second.dispatch_id)

        assert (await scene.dispatch(first.dispatch_id)).abort_requested_at is None
        assert (await scene.dispatch(elsewhere.dispatch_id)).abort_requested_at is None

    async def test_the_first_requests_time_is_kept_and_told_once(self, scene: Scene) -> None:
        receipt = await scene.admit()
        first = await scene.store.ledger.request_abort(receipt.dispatch_id)
        scene.clock.advance(MINUTE)

        again = await scene.store.ledger.request_abort(receipt.dispatch_id)

        assert first is not None
        assert again is not None
        assert again.abort_requested_at == first.abort_requested_at
        assert (await scene.event_types(receipt.dispatch_id)).count("dispatch.abort_requested") == 1

    async def test_a_settled_dispatch_is_left_as_it_is(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.settle()
        await turn.release()
        before = await scene.snapshot(turn)

        returned = await scene.store.ledger.request_abort(turn.dispatch_id)

        assert returned is not None
        assert (returned.status, returned.abort_requested_at) == ("completed", None)
        assert await scene.snapshot(turn) == before

    async def test_aborting_what_does_not_exist_gives_none(self, scene: Scene) -> None:
        assert await scene.store.ledger.request_abort(scene.ids.dispatch()) is None

    async def test_an_abort_wakes_a_parked_dispatch(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.park(MINUTE)
        await turn.release()
        assert await scene.claim() is None

        await scene.store.ledger.request_abort(turn.dispatch_id)

        mailbox = await scene.store.ledger.mailbox(await scene.lease())
        assert mailbox.head is not None
        assert mailbox.head.available_at == mailbox.now
        assert mailbox.head.abort_requested_at is not None

    async def test_an_abort_during_a_turn_keeps_its_lease_from_being_released_unseen(self, scene: Scene) -> None:
        turn = await scene.start()
        mailbox = await scene.store.ledger.mailbox(turn.lease)

        await scene.store.ledger.request_abort(turn.dispatch_id)

        assert not await scene.store.ledger.release(turn.lease, mailbox.seen)
        assert await turn.append(said("the turn goes on until it looks")) == 1
        await turn.settle("aborted")
        assert await turn.release()
        assert await scene.due_in() is None

    async def test_queued_work_asked_to_abort_settles_aborted_without_starting(self, scene: Scene) -> None:
        receipt = await scene.admit()
        await scene.store.ledger.request_abort(receipt.dispatch_id)
        lease = await scene.lease()

        await scene.store.ledger.settle(lease, Settlement(TurnWrite(receipt.dispatch_id, 0), "aborted"))

        row = await scene.dispatch(receipt.dispatch_id)
        assert (row.status, row.started_at) == ("aborted", None)

    async def test_a_replay_is_new_work_that_names_what_it_repeats(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.settle("failed")
        await turn.release()
        before = await scene.dispatch(turn.dispatch_id)

        replay = await scene.admit_replay(turn.dispatch_id)

        row = await scene.dispatch(replay.dispatch_id)
        assert (row.replay_of, row.status, row.position) == (turn.dispatch_id, "queued", 2)
        assert await scene.dispatch(turn.dispatch_id) == before
        assert await scene.claim() is not None
