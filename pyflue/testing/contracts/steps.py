"""What a store promises about memoised steps."""

from __future__ import annotations

import asyncio

import pytest

from pyflue.errors import LeaseLost
from pyflue.testing.contracts.stage import OtherStore, Scene, StoreContract


class StepsContract(StoreContract):
    """``Steps``."""

    async def test_a_step_nobody_recorded_has_no_result(self, scene: Scene) -> None:
        assert await scene.store.steps.get("call_1", "charge") is None

    async def test_a_recorded_result_comes_back_byte_for_byte(self, scene: Scene) -> None:
        turn = await scene.start()
        result = b'{"z": 1.50,  "a": "\\u0000", "text": "' + b"x" * 2_500_000 + b'"}'

        assert await scene.store.steps.put(turn.lease, "call_1", "charge", result) == result

        assert await scene.store.steps.get("call_1", "charge") == result

    async def test_the_first_result_recorded_wins(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.store.steps.put(turn.lease, "call_1", "charge", b"1")

        assert await scene.store.steps.put(turn.lease, "call_1", "charge", b"2") == b"1"
        assert await scene.store.steps.get("call_1", "charge") == b"1"

    async def test_steps_of_other_scopes_and_names_are_separate(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.store.steps.put(turn.lease, "call_1", "charge", b"1")

        assert await scene.store.steps.get("call_2", "charge") is None
        assert await scene.store.steps.get("call_1", "refund") is None

    async def test_a_successor_finds_what_a_dead_worker_recorded(self, scene: Scene, other_store: OtherStore) -> None:
        turn = await scene.start()
        await scene.store.steps.put(turn.lease, "call_1", "charge", b"1")
        lease = await scene.take_over(turn)
        other = await other_store()

        assert await other.steps.get("call_1", "charge") == b"1"
        assert await other.steps.put(lease, "call_1", "charge", b"2") == b"1"

    async def test_a_stale_token_records_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.take_over(turn)

        with pytest.raises(LeaseLost):
            await scene.store.steps.put(turn.lease, "call_1", "charge", b"1")

        assert await scene.store.steps.get("call_1", "charge") is None

    async def test_racing_results_agree_on_one(self, scene: Scene, other_store: OtherStore) -> None:
        turn = await scene.start()
        stores = [scene.store, await other_store()]

        results = await asyncio.gather(
            *(stores[n % 2].steps.put(turn.lease, "call_1", "charge", str(n).encode()) for n in range(8))
        )

        assert set(results) == {await scene.store.steps.get("call_1", "charge")}
