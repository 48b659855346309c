"""What a store promises about a session's journal."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec import Raw
from msgspec.structs import replace

from pyflue.entries import (
    AdvisoryEntry,
    AnswerEntry,
    Entry,
    HiddenEntry,
    InputEntry,
    StateEntry,
    SummaryEntry,
    ToolResultEntry,
    ToolStartedEntry,
    decode_entry,
    encode_entry,
    kind_of_entry,
)
from pyflue.errors import LeaseLost
from pyflue.events import ToolStarted
from pyflue.messages import OtherPart, TextPart, ThinkingPart, ToolUsePart, Usage
from pyflue.testing.contracts.stage import SECOND, OtherStore, Scene, StoreContract, said

EVERY_KIND: tuple[Entry, ...] = (
    InputEntry("nul \x00 and \u2603", "signal", "message", {"zeta": "1", "alpha": "2"}),
    AnswerEntry(
        (
            ThinkingPart("hm", "c2lnbmF0dXJl"),
            TextPart("let me look"),
            ToolUsePart("call_1", "lookup", Raw(b'{"z": 1, "a": {"y": [1.50, 1e3]}}')),
            OtherPart(Raw(b'{"type":"new_block","b":1,"a":2}')),
        ),
        "tool_use",
        "model",
        Usage(1, 2, 3, 4),
        "msg_1",
    ),
    ToolStartedEntry("call_1", "lookup"),
    ToolResultEntry("call_1", "lookup", "\x00\x01 found", "unknown"),
    SummaryEntry("so far"),
    AdvisoryEntry("stopped", "a worker died", for_model=True),
    HiddenEntry(1, 3),
    StateEntry("mood", Raw(b'{"z":null,"a":"\\u0000"}')),
)


class JournalContract(StoreContract):
    """``Journal``."""

    async def test_entries_are_numbered_from_one_without_gaps_in_the_order_written(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(said("a"), said("b"))
        scene.clock.advance(SECOND)
        assert await turn.append(said("c")) == 3

        lines = await scene.store.journal.load(scene.session())

        assert [line.seq for line in lines] == [1, 2, 3]
        assert [decode_entry(line.body) for line in lines] == [said("a"), said("b"), said("c")]
        assert {(line.dispatch_id, line.kind, line.token) for line in lines} == {(turn.dispatch_id, "input", 1)}
        assert lines[2].created_at - lines[1].created_at == SECOND

    async def test_entries_of_every_kind_come_back_byte_for_byte(self, scene: Scene) -> None:
        turn = await scene.start()

        await turn.append(*EVERY_KIND)

        lines = await scene.store.journal.load(scene.session())
        assert [line.body for line in lines] == [encode_entry(entry) for entry in EVERY_KIND]
        assert [line.kind for line in lines] == [kind_of_entry(entry) for entry in EVERY_KIND]
        assert [decode_entry(line.body) for line in lines] == list(EVERY_KIND)

    async def test_an_entry_of_megabytes_comes_back_whole(self, scene: Scene) -> None:
        turn = await scene.start()
        value = Raw(json.dumps({"z": "\u2603\u0000x" * 300_000, "a": [1] * 100}, ensure_ascii=False).encode())
        entry = ToolResultEntry("call_1", "read", "y\x00" * 1_250_000)

        await turn.append(entry, StateEntry("big", value))

        lines = await scene.store.journal.load(scene.session())
        assert lines[0].body == encode_entry(entry)
        assert decode_entry(lines[1].body) == StateEntry("big", value)

    async def test_a_write_is_whole_or_not_at_all(self, scene: Scene) -> None:
        turn = await scene.start()
        turn.head = 7
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await turn.append(said("a"), said("b"), events=(ToolStarted("call_1", "lookup"),), outbox=(scene.draft(),))

        assert await scene.snapshot(turn) == before

    async def test_a_write_repeated_over_its_own_head_is_refused(self, scene: Scene) -> None:
        turn = await scene.start()
        write = turn.write(said("once"))
        await scene.store.journal.append(turn.lease, write)

        for repeated in (write, replace(write, entries=(said("oncf"),))):
            with pytest.raises(LeaseLost):
                await scene.store.journal.append(turn.lease, repeated)

        assert await scene.store.journal.head(scene.session()) == (1, 1)

    async def test_a_stale_token_writes_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        await scene.take_over(turn)
        before = await scene.snapshot(turn)

        with pytest.raises(LeaseLost):
            await turn.append(said("ghost"), events=(ToolStarted("call_1", "lookup"),), outbox=(scene.draft(),))
        with pytest.raises(LeaseLost):
            await turn.append()

        assert await scene.snapshot(turn) == before

    async def test_a_token_from_the_future_writes_nothing(self, scene: Scene) -> None:
        turn = await scene.start()
        turn.lease = replace(turn.lease, token=turn.lease.token + 1)

        with pytest.raises(LeaseLost):
            await turn.append(said("ghost"))

        assert await scene.store.journal.load(scene.session()) == []

    async def test_of_two_writes_at_once_over_one_head_exactly_one_wins(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        turn = await scene.start()
        stores = [scene.store, await other_store()]

        for round_ in range(5):
            results = await asyncio.gather(
                *(stores[n % 2].journal.append(turn.lease, turn.write(said(f"{round_} {n}"))) for n in range(4)),
                return_exceptions=True,
            )
            assert sum(isinstance(result, LeaseLost) for result in results) == 3
            turn.head += 1

        lines = await scene.store.journal.load(scene.session())
        assert [line.seq for line in lines] == [1, 2, 3, 4, 5]

    async def test_a_takeover_and_a_write_at_once_leave_a_gapless_journal(
        self, scene: Scene, other_store: OtherStore
    ) -> None:
        turn = await scene.start()
        other = await other_store()

        async def write_until_fenced() -> None:
            while True:
                await turn.append(said("zombie"))
                await asyncio.sleep(0)

        async def take_over() -> int:
            await other.fleet.retire(turn.lease.worker_id)
            lease = await other.ledger.claim(scene.session(), await scene.worker(), frozenset({"echo"}))
            assert lease is not None
            successor = await scene.begin(lease)
            return await successor.append(said("successor"))

        fenced, head = await asyncio.gather(write_until_fenced(), take_over(), return_exceptions=True)

        assert isinstance(fenced, LeaseLost)
        assert isinstance(head, int)
        lines = await scene.store.journal.load(scene.session())
        assert [line.seq for line in lines] == list(range(1, head + 1))
        assert lines[-1].body == encode_entry(said("successor"))
        assert [line.token for line in lines] == [1] * (head - 1) + [3]

    async def test_a_write_without_entries_checks_the_lease_and_keeps_the_head(self, scene: Scene) -> None:
        turn = await scene.start()

        assert await turn.append(events=(ToolStarted("call_1", "lookup"),)) == 0
        assert await scene.store.journal.load(scene.session()) == []
        assert (await scene.event_types(turn.dispatch_id))[-1] == "tool.started"

    async def test_reading_starts_after_the_number_given_and_stops_at_the_limit(self, scene: Scene) -> None:
        turn = await scene.start()
        await turn.append(*(said(str(n)) for n in range(1, 6)))

        assert [line.seq for line in await scene.store.journal.load(scene.session(), after=2)] == [3, 4, 5]
        assert [line.seq for line in await scene.store.journal.load(scene.session(), after=1, limit=2)] == [2, 3]
        assert await scene.store.journal.load(scene.session(), after=5) == []

    async def test_a_session_nobody_wrote_to_is_empty(self, scene: Scene) -> None:
        assert await scene.store.journal.load(scene.session("nowhere")) == []
        assert await scene.store.journal.head(scene.session("nowhere")) == (0, 0)

    async def test_journals_of_two_sessions_are_separate(self, scene: Scene) -> None:
        one, two = await scene.start("one"), await scene.start("two")
        await one.append(said("one"))

        assert await two.append(said("two"), said("two")) == 2
        assert await scene.store.journal.head(scene.session("one")) == (1, 1)
        assert len(await scene.store.journal.load(scene.session("two"))) == 2

    async def test_what_one_host_wrote_another_reads_and_continues(self, scene: Scene, other_store: OtherStore) -> None:
        turn = await scene.start()
        await turn.append(said("here"))

        turn.store = await other_store()

        assert [line.seq for line in await turn.store.journal.load(scene.session())] == [1]
        assert await turn.append(said("there")) == 2
