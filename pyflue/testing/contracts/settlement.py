"""What a store promises about settling."""

from __future__ import annotations

import asyncio

import pytest

from pyflue.dispatches import DispatchError, DispatchResult, Outcome
from pyflue.entries import Entry
from pyflue.errors import LeaseLost, StoreError
from pyflue.events import DispatchSettled
from pyflue.messages import Usage
from pyflue.stores.protocol import Settlement, TurnWrite
from pyflue.testing.contracts.stage import BUDGET, SECOND, OtherStore, Scene, StoreContract, said


class SettlementContract(StoreContract):
    """``Ledger.settle``."""

    async def test_settling_commits_entries_outcome_replies_and_events_together(self, scene: Scene) -> None:
        turn = await scene.start()
        draft = scene.draft("the answer")
        result = DispatchResult("the answer\x00", Usage(10, 20, 30, 40), "model", 3, "end_turn")
        scene.clock.advance(SECOND)

        settled = await scene.store.ledger.settle(
            turn.lease,
            Settlement(
                turn.write(said("last"), events=(DispatchSettled("completed", 3),), outbox=(draft,)),
                "completed",
                result,
            ),
        )

        assert (settled.head, settled.released, settled.reply) == (1, False, None)
        row = await scene.dispatch(turn.dispatch_id)
        assert (row.status, row.settled_at, row.result, row.error) == ("completed", scene.clock.now(), result, None)
        [item] = await scene.store.views.outbox(dispatch_id=turn.dispatch_id)
        assert (item.id, item.status, item.position, item.body) == (draft.id, "pending", 1, "the answer")
        assert (await scene.event_types(turn.dispatch_id))[-1] == "dispatch.settled"

    async def test_a_failure_keeps_its_code_and_message(self, scene: Scene) -> None:
        turn = await scene.start()
        error = DispatchError("attempts_exhausted", "10 attempts, the last said: \x00 \u2603")

        await scene.store.ledger.settle(turn.lease, Settlement(turn.write(), "failed", error=error))

        row = await scene.dispatch(turn.dispatch_id)
        assert (row.status, row.error, row.result) == ("failed", error, None)

    @pytest.mark.parametrize("outcome", ["completed", "failed", "aborted"])
    async def test_work_counts_as_unsettled_until_it_is_settled(self, scene: Scene, outcome: Outcome) -> None:
        turn = await scene.start()
        row = await scene.store.views.session(scene.session())
        assert row is not None
        assert (row.unsettled, (await scene.dispatch(turn.dispatch_id)).settled_at) == (1, None)

        await turn.settle(outcome)

        row = await scene.store.views.session(scene.session())
        assert row is not None
        assert row.unsettled == 0

    async def test_queued_work_can_be_settled_without_being_started(self, scene: Scene) -> None:
        receipt = await scene.admit()
        lease = await scene.lease()

        await scene.store.ledger.settle(
            lease,
            Settlement(TurnWrite(receipt.dispatch_id, 0), "failed", error=DispatchError("expired", "waited too long")),
        )

        row = await scene.dispatch(receipt.dispatch_id)
        assert (row.status, row.attempts, row.started_at) == ("failed", 0, None)

    async def test_a_settled_dispatch_never_changes(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.settle("completed")
        before = await scene.snapshot(turn)

        with pytest.raises(StoreError):
            await turn.settle("failed", scene.draft())
        with pytest.raises(StoreError):
            await turn.park()
        with pytest.raises(StoreError):
            await scene.store.ledger.begin(turn.lease, turn.write(said("again")), BUDGET)

        assert await scene.snapshot(turn) == before

    async def test_settling_under_a_stale_token_changes_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        lease = await scene.take_over(turn)
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await scene.store.ledger.settle(
                turn.lease,
                Settlement(
                    turn.write(said("ghost"), events=(DispatchSettled("completed"),), outbox=(scene.draft(),)),
                    "completed",
                    DispatchResult("ghost"),
                    release_if_seen=1,
                    keep_first_reply=True,
                ),
            )
        assert await scene.snapshot(turn) == before

        await (await scene.begin(lease)).settle("failed")
        with pytest.raises(LeaseLost):
            await turn.settle("completed")
        assert (await scene.dispatch(turn.dispatch_id)).status == "failed"

    async def test_settling_over_a_moved_head_is_a_lost_lease(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(said("one"))
        turn.head = 0

        with pytest.raises(LeaseLost):
            await turn.settle()

        assert (await scene.dispatch(turn.dispatch_id)).status == "running"

    async def test_settling_the_last_work_can_give_the_lease_back_at_once(self, scene: Scene) -> None:
        turn = await scene.start()

        settled = await scene.store.ledger.settle(turn.lease, Settlement(turn.write(), "completed", release_if_seen=1))

        assert settled.released
        assert await scene.due_in() is None
        row = await scene.store.views.session(scene.session())
        assert row is not None
        assert row.lease_owner is None

    async def test_settling_keeps_the_lease_when_something_arrived_since(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.admit()

        settled = await scene.store.ledger.settle(turn.lease, Settlement(turn.write(), "completed", release_if_seen=1))

        assert not settled.released
        assert (await scene.store.ledger.mailbox(turn.lease)).unsettled == 1

    async def test_settling_keeps_the_lease_when_only_the_counter_moved(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.store.ledger.request_abort(turn.dispatch_id)

        settled = await scene.store.ledger.settle(turn.lease, Settlement(turn.write(), "aborted", release_if_seen=1))

        assert not settled.released
        assert await turn.release()

    async def test_settling_keeps_the_lease_while_other_work_is_unsettled(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.admit()

        settled = await scene.store.ledger.settle(turn.lease, Settlement(turn.write(), "completed", release_if_seen=2))

        assert not settled.released
        assert await scene.claim() is None

    async def test_settling_can_keep_its_first_reply_for_the_settling_worker(self, scene: Scene) -> None:
        turn = await scene.start()
        first, second = scene.draft("one"), scene.draft("two")

        settled = await turn.settle("completed", first, second, keep=True)

        assert settled.reply is not None
        assert (settled.reply.id, settled.reply.status, settled.reply.attempts) == (first.id, "sending", 1)
        assert (settled.reply.lease_token, settled.reply.recovered) == (1, False)
        assert settled.reply == await scene.store.views.outbox_item(first.id)
        assert await scene.store.outbox.claim(scene.session(), await scene.worker()) is None

    async def test_an_older_unsent_reply_goes_before_the_settlements_own(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(outbox=(scene.draft("earlier"),))

        settled = await turn.settle("completed", scene.draft("later"), keep=True)

        assert settled.reply is None
        items = await scene.store.views.outbox(session_id=scene.session())
        assert [(item.body, item.status) for item in items] == [("earlier", "pending"), ("later", "pending")]

    @pytest.mark.parametrize("last", [(said("last"),), ()], ids=["with an entry", "without entries"])
    async def test_of_two_settlements_at_once_exactly_one_wins(
        self, scene: Scene, other_store: OtherStore, last: tuple[Entry, ...]
    ) -> None:
        turn = await scene.start()
        other = await other_store()
        outcomes: tuple[Outcome, Outcome] = ("completed", "failed")

        results = await asyncio.gather(
            *(
                store.ledger.settle(
                    turn.lease,
                    Settlement(turn.write(*last, events=(DispatchSettled(outcome),)), outcome),
                )
                for store, outcome in zip((scene.store, other), outcomes, strict=True)
            ),
            return_exceptions=True,
        )

        lost = [result for result in results if isinstance(result, BaseException)]
        assert len(lost) == 1
        assert isinstance(lost[0], LeaseLost | StoreError)
        assert (await scene.event_types(turn.dispatch_id)).count("dispatch.settled") == 1
