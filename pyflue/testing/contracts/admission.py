"""What a store promises about letting work in."""

from __future__ import annotations

import asyncio
import json

from msgspec import Raw
from msgspec.structs import replace

from pyflue.dispatches import DedupeKey, DispatchInput, QueueLimits, Receipt, Refusal, ReplyAddress
from pyflue.stores.protocol import DispatchQuery
from pyflue.testing.contracts.stage import LIMITS, MINUTE, SECOND, OtherStore, Scene, StoreContract, said


class AdmissionContract(StoreContract):
    """``Ledger.admit``."""

    async def test_an_admission_is_queued_at_the_end_of_its_mailbox(self, scene: Scene) -> None:
        first, second = await scene.admit(), await scene.admit()

        rows = [await scene.dispatch(receipt.dispatch_id) for receipt in (first, second)]
        assert [(row.status, row.position, row.attempts) for row in rows] == [("queued", 1, 0), ("queued", 2, 0)]
        assert rows[0].accepted_at == rows[0].available_at == first.accepted_at == scene.clock.now()
        assert rows[0].started_at is rows[0].deadline_at is rows[0].settled_at is None

    async def test_the_same_admission_twice_gives_one_dispatch_and_the_first_receipt(self, scene: Scene) -> None:
        key = scene.key()
        first = await scene.admit("one", key)
        scene.clock.advance(MINUTE)

        again = await scene.admit("one", key)

        assert again == replace(first, duplicate=True)
        assert len(await scene.store.views.dispatches(DispatchQuery())) == 1
        row = await scene.store.views.session(scene.session())
        assert row is not None
        assert (row.mailbox_head, row.unsettled) == (1, 1)

    async def test_a_duplicate_of_settled_work_still_gets_the_first_receipt(self, scene: Scene) -> None:
        key = scene.key()
        first = await scene.admit("one", key)
        turn = await scene.begin(await scene.lease())
        await turn.settle()

        assert await scene.admit("one", key) == replace(first, duplicate=True)
        assert (await scene.dispatch(first.dispatch_id)).status == "completed"

    async def test_admissions_of_one_call_may_share_keys_and_are_answered_in_order(self, scene: Scene) -> None:
        key = scene.key()
        asked = [scene.admission("one", key), scene.admission("two"), scene.admission("one", key)]

        first, other, again = await scene.store.ledger.admit(asked, LIMITS)

        assert isinstance(first, Receipt)
        assert isinstance(other, Receipt)
        assert (first.dispatch_id, first.duplicate) == (asked[0].dispatch_id, False)
        assert (other.dispatch_id, other.duplicate) == (asked[1].dispatch_id, False)
        assert again == replace(first, duplicate=True)

    async def test_admissions_of_one_call_to_one_session_keep_their_order(self, scene: Scene) -> None:
        asked = [scene.admission("one") for _ in range(5)]

        await scene.store.ledger.admit(asked, LIMITS)

        rows = [await scene.dispatch(admission.dispatch_id) for admission in asked]
        assert [row.position for row in rows] == [1, 2, 3, 4, 5]

    async def test_any_known_key_makes_a_duplicate_and_its_other_keys_stay_free(self, scene: Scene) -> None:
        known, fresh = scene.key(), scene.key()
        first = await scene.admit("one", known)

        again = await scene.admit("one", fresh, known)
        later = await scene.admit("one", fresh)

        assert again == replace(first, duplicate=True)
        assert not later.duplicate

    async def test_every_key_of_an_event_recognises_it(self, scene: Scene) -> None:
        delivery, message = scene.key(), scene.key()
        first = await scene.admit("one", delivery, message)

        assert await scene.admit("one", delivery) == replace(first, duplicate=True)
        assert await scene.admit("one", message) == replace(first, duplicate=True)

    async def test_the_same_key_of_another_source_is_another_event(self, scene: Scene) -> None:
        first = await scene.admit("one", DedupeKey("slack:T1", "1"))
        second = await scene.admit("one", DedupeKey("slack:T2", "1"))

        assert not first.duplicate
        assert not second.duplicate

    async def test_another_body_under_a_callers_key_is_a_conflict_and_changes_nothing(self, scene: Scene) -> None:
        key = scene.key()
        original = replace(scene.admission("one", key, text="pay 1"), body_hash=b"one")
        await scene.store.ledger.admit([original], LIMITS)
        before = await scene.dispatch(original.dispatch_id)

        changed = replace(scene.admission("one", key, text="pay 2"), body_hash=b"two")
        same = replace(scene.admission("one", key, text="pay 1"), body_hash=b"one")
        refused, repeated = await scene.store.ledger.admit([changed, same], LIMITS)

        assert refused == Refusal("conflict", original.dispatch_id)
        assert isinstance(repeated, Receipt)
        assert repeated.duplicate
        assert await scene.dispatch(original.dispatch_id) == before
        assert await scene.store.views.dispatch(changed.dispatch_id) is None

    async def test_a_platforms_retry_with_another_body_is_a_duplicate_not_a_conflict(self, scene: Scene) -> None:
        key = scene.key()
        asked = [scene.admission("one", key, text="first"), scene.admission("one", key, text="retry, attempt 2")]

        _, again = await scene.store.ledger.admit(asked, LIMITS)

        assert isinstance(again, Receipt)
        assert (again.dispatch_id, again.duplicate) == (asked[0].dispatch_id, True)

    async def test_a_body_is_compared_only_where_both_sends_came_with_a_hash(self, scene: Scene) -> None:
        hashed, plain = scene.key(), scene.key()
        first = replace(scene.admission("one", hashed), body_hash=b"one")
        second = scene.admission("one", plain)
        await scene.store.ledger.admit([first, second], LIMITS)

        asked = [scene.admission("one", hashed), replace(scene.admission("one", plain), body_hash=b"two")]
        answers = await scene.store.ledger.admit(asked, LIMITS)

        found = [answer.dispatch_id for answer in answers if isinstance(answer, Receipt) and answer.duplicate]
        assert found == [first.dispatch_id, second.dispatch_id]

    async def test_input_comes_back_byte_for_byte(self, scene: Scene) -> None:
        given = DispatchInput(
            text='nul \x00, quote ", snow \u2603, \U0001f600 and a lone\ttab',
            role="signal",
            type="message",
            attributes={"zeta": "1", "alpha": "\x00"},
            payload=Raw(b'{"z": 1,  "a": [1.0, 1e2, "\\u0000"], "a2": null}'),
            reply=ReplyAddress("chat", Raw(b'{"thread":"1.0","channel":"C\\u00e9"}'), "tool", "sorry"),
        )
        admission = replace(scene.admission(), input=given)

        await scene.store.ledger.admit([admission], LIMITS)

        assert (await scene.dispatch(admission.dispatch_id)).input == given
        mailbox = await scene.store.ledger.mailbox(await scene.lease())
        assert mailbox.head is not None
        assert mailbox.head.input == given

    async def test_an_input_of_megabytes_comes_back_whole(self, scene: Scene) -> None:
        payload = Raw(json.dumps({"z": "\u2603\u0000" * 250_000, "a": "x" * 1_000_000}).encode())
        admission = replace(scene.admission(), input=DispatchInput("big " * 100_000, payload=payload))

        await scene.store.ledger.admit([admission], LIMITS)

        assert (await scene.dispatch(admission.dispatch_id)).input == admission.input

    async def test_what_an_admission_says_about_itself_is_kept(self, scene: Scene) -> None:
        first = await scene.admit()
        admission = replace(
            scene.admission(), expires_after=MINUTE, replay_of=first.dispatch_id, traceparent="00-abc-def-01"
        )

        await scene.store.ledger.admit([admission], LIMITS)

        row = await scene.dispatch(admission.dispatch_id)
        assert (row.expires_at, row.replay_of, row.traceparent) == (
            scene.clock.now() + MINUTE,
            first.dispatch_id,
            "00-abc-def-01",
        )

    async def test_the_accepted_event_is_number_one_of_its_dispatch(self, scene: Scene) -> None:
        receipt = await scene.admit("one", DedupeKey("github", "42"))

        [event] = await scene.store.events.read(receipt.dispatch_id)
        assert (event.stream, event.seq, event.type, event.at) == (
            receipt.dispatch_id,
            1,
            "dispatch.accepted",
            receipt.accepted_at,
        )
        assert json.loads(bytes(event.data))["source"] == "github"

    async def test_an_admission_during_a_turn_disturbs_neither_its_lease_nor_its_journal(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(said("working"))
        before = await scene.store.views.session(scene.session())
        assert before is not None

        await scene.admit()

        after = await scene.store.views.session(scene.session())
        assert after is not None
        assert (after.lease_owner, after.lease_token, after.head) == (
            before.lease_owner,
            before.lease_token,
            before.head,
        )
        assert await turn.append(said("still working")) == 2

    async def test_an_admission_makes_its_session_due_and_keeps_an_earlier_time(self, scene: Scene) -> None:
        await scene.admit()
        scene.clock.advance(SECOND)
        await scene.admit()

        assert await scene.due_in() == -SECOND

    async def test_sessions_of_the_same_instance_id_under_other_agents_are_separate(self, scene: Scene) -> None:
        mine = await scene.dispatch((await scene.admit("one", agent="echo")).dispatch_id)
        other = await scene.dispatch((await scene.admit("one", agent="other")).dispatch_id)

        assert mine.session_id != other.session_id
        assert (mine.position, other.position) == (1, 1)

    async def test_work_from_every_source_shares_one_order(self, scene: Scene) -> None:
        sources = ["slack", "http", "github", "dispatch"]
        receipts = [await scene.admit("one", DedupeKey(source, "1")) for source in sources]

        rows = [await scene.dispatch(receipt.dispatch_id) for receipt in receipts]
        assert [row.position for row in rows] == [1, 2, 3, 4]

    async def test_a_full_session_refuses_counting_earlier_ones_of_the_same_call(self, scene: Scene) -> None:
        limits = QueueLimits(per_session=2)
        asked = [scene.admission("one"), scene.admission("one"), scene.admission("one"), scene.admission("two")]

        answers = await scene.store.ledger.admit(asked, limits)

        assert [isinstance(answer, Receipt) for answer in answers] == [True, True, False, True]
        assert answers[2] == Refusal("session_full", limit=2)

    async def test_a_full_deployment_refuses_whatever_the_session(self, scene: Scene) -> None:
        limits = QueueLimits(per_deployment=2)
        asked = [scene.admission("one"), scene.admission("two"), scene.admission("three")]

        answers = await scene.store.ledger.admit(asked, limits)

        assert answers[2] == Refusal("deployment_full", limit=2)

    async def test_a_duplicate_is_answered_even_when_the_queue_is_full(self, scene: Scene) -> None:
        key = scene.key()
        first = await scene.admit("one", key)

        [again] = await scene.store.ledger.admit([scene.admission("one", key)], QueueLimits(1, 1))

        assert again == replace(first, duplicate=True)

    async def test_settled_work_does_not_count_against_the_limits(self, scene: Scene) -> None:
        await (await scene.start()).settle()

        [answer] = await scene.store.ledger.admit([scene.admission("one")], QueueLimits(1, 1))

        assert isinstance(answer, Receipt)

    async def test_a_refusal_leaves_no_trace(self, scene: Scene) -> None:
        key = scene.key()
        await scene.admit("one")
        refused = scene.admission("one", key)
        [answer] = await scene.store.ledger.admit([refused], QueueLimits(per_session=1))
        assert isinstance(answer, Refusal)

        assert await scene.store.views.dispatch(refused.dispatch_id) is None
        assert await scene.store.events.read(refused.dispatch_id) == []
        later = await scene.admit("one", key)
        assert not later.duplicate
        assert (await scene.dispatch(later.dispatch_id)).position == 2

    async def test_an_empty_call_admits_nothing(self, scene: Scene) -> None:
        assert await scene.store.ledger.admit([], LIMITS) == []

    async def test_a_hundred_first_sends_at_once_agree_on_one_dispatch(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        stores = [scene.store, await other_store()]
        key = scene.key()
        calls = [stores[n % 2].ledger.admit([scene.admission("one", key)], LIMITS) for n in range(100)]

        answers = [answer for [answer] in await asyncio.gather(*calls)]

        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        assert len(receipts) == 100
        assert len({receipt.dispatch_id for receipt in receipts}) == 1
        assert sum(not receipt.duplicate for receipt in receipts) == 1
        assert len(await scene.store.views.dispatches(DispatchQuery())) == 1

    async def test_racing_calls_with_overlapping_keys_in_any_order_neither_deadlock_nor_double(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        stores = [scene.store, await other_store()]
        keys = [scene.key() for _ in range(10)]
        calls = [
            stores[n % 2].ledger.admit(
                [scene.admission("one", key) for key in (keys if n % 4 < 2 else reversed(keys))], LIMITS
            )
            for n in range(20)
        ]

        answers = [answer for batch in await asyncio.gather(*calls) for answer in batch]

        assert sum(isinstance(answer, Receipt) and not answer.duplicate for answer in answers) == 10
        assert len(await scene.store.views.dispatches(DispatchQuery())) == 10

    async def test_positions_follow_the_order_in_which_admissions_were_committed(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        stores = [scene.store, await other_store()]

        async def send_in_order(sender: int) -> list[int]:
            positions: list[int] = []
            for _ in range(5):
                admission = scene.admission("one")
                await stores[sender % 2].ledger.admit([admission], LIMITS)
                positions.append((await scene.dispatch(admission.dispatch_id)).position)
            return positions

        per_sender = await asyncio.gather(*(send_in_order(sender) for sender in range(6)))

        assert all(positions == sorted(positions) for positions in per_sender)
        assert sorted(position for positions in per_sender for position in positions) == list(range(1, 31))
