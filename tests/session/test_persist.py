"""An agent that keeps its conversation in a store of its own: the ledger stays, the entries live there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from pyflue import InMemorySessionStore, SessionStore, SQLiteSessionStore
from pyflue.config import Settings
from pyflue.entries import AnswerEntry, decode_entry, encode_entry
from pyflue.errors import StoreUnavailableError
from pyflue.mailbox.settle import STOPPED
from pyflue.messages import AssistantMessage, TextPart, UserMessage
from pyflue.models.protocol import ModelFailure, ModelRequest
from pyflue.stores.protocol import EntryLine
from pyflue.testing.flow import FAST, Flow
from pyflue.testing.models import Held, ScriptedModel, calls
from tests.session.agents import Bench, an_agent, kinds


async def kept_kinds(store: SessionStore, session_id: str) -> list[str]:
    rows = await store.load(session_id)
    return kinds([decode_entry(bytes(msgspec.json.decode(body, type=EntryLine).entry)) for _, body in rows])


async def test_the_conversation_is_kept_there_and_carried_on() -> None:
    kept = InMemorySessionStore()
    async with Flow({"agent": an_agent(persist=kept)}, model=ScriptedModel("hello", "again")) as flow:
        first = await flow.outcome(await flow.dispatch("hi"))
        second = await flow.outcome(await flow.dispatch("hi again"))

        assert [first.status, second.status] == ["completed", "completed"]
        assert await kept_kinds(kept, first.session_id) == ["input", "answer", "input", "answer"]
        assert "answer" not in kinds(await flow.journal(first.id))
        assert len(flow.model_calls[1].messages) == 3
        assert isinstance(flow.model_calls[1].messages[1], AssistantMessage)


async def test_a_takeover_resumes_from_there(tmp_path: Path) -> None:
    kept = SQLiteSessionStore(tmp_path / "talk.sqlite3")
    first, second = Bench("first"), Bench("second", retry="safe")
    first.let_go.set()
    model = ScriptedModel(calls(("first", {}), ("second", {})), "done")
    async with Flow({"agent": an_agent(first.tool, second.tool, persist=kept)}, model=model) as flow:
        receipt = await flow.dispatch("go")
        row = await flow.row(receipt)

        async def first_is_recorded() -> bool:
            return "tool_result" in await kept_kinds(kept, row.session_id)

        await flow.until(first_is_recorded)
        await second.reached.wait()
        await flow.take_over()
        second.let_go.set()

        assert (await flow.outcome(receipt)).status == "completed"
        assert (first.began, second.began) == (1, 2)
        assert len(flow.model_calls) == 2
        found = await kept_kinds(kept, row.session_id)
        assert found == ["input", "answer", "tool_started", "tool_result", "tool_result", "answer"]


async def test_a_conversation_begun_elsewhere_is_known() -> None:
    kept = InMemorySessionStore()
    async with Flow({"agent": an_agent(persist=kept)}, model=ScriptedModel("hello")) as flow:
        await flow.outcome(await flow.dispatch("I am Ada."))
    async with Flow({"agent": an_agent(persist=kept)}, model=ScriptedModel("Ada")) as flow:
        await flow.outcome(await flow.dispatch("Who am I?"))

        assert len(flow.model_calls[0].messages) == 3


async def test_another_writer_in_that_store_ends_the_turn_and_nothing_is_overwritten() -> None:
    kept = InMemorySessionStore()
    held = Held("stale")
    settings = Settings(worker=replace(FAST, rescue=0.3))
    agent = an_agent(persist=kept)
    async with Flow({"agent": agent}, model=ScriptedModel(held, "fresh"), settings=settings) as flow:
        receipt = await flow.dispatch("go")
        await held.reached.wait()
        session_id = (await flow.row(receipt)).session_id
        [(_, body)] = await kept.load(session_id)
        await kept.append(session_id, 1, [body])
        held.release.set()
        async with asyncio.timeout(2):  # the lease is ours still, and given up in the next round
            row = await flow.outcome(receipt)

        assert row.result is not None
        assert row.result.text == "fresh"
        assert await kept_kinds(kept, session_id) == ["input", "input", "answer"]


async def test_lines_there_that_cannot_be_read_are_left_out() -> None:
    kept = InMemorySessionStore()
    async with Flow({"agent": an_agent(persist=kept)}, model=ScriptedModel("hello")) as flow:
        receipt = await flow.dispatch("hi", thread="x")
        session_id = (await flow.outcome(receipt)).session_id
        await kept.append(session_id, 2, [b"not json"])
        flow._model.add("again")  # type: ignore[union-attr]

        assert (await flow.outcome(await flow.dispatch("again", thread="x"))).status == "completed"


async def test_an_entry_of_a_newer_release_there_puts_the_dispatch_back_without_an_attempt() -> None:
    kept = InMemorySessionStore()
    async with Flow({"agent": an_agent(persist=kept)}, model=ScriptedModel("hello")) as flow:
        first = await flow.outcome(await flow.dispatch("hi"))
        await kept.append(first.session_id, 2, [b'{"dispatch_id":"dsp_x","entry":{"kind":"telepathy"}}'])
        second = await flow.dispatch("again")

        async def is_put_back() -> bool:
            return (await flow.row(second)).available_at > flow.clock.now()

        await flow.until(is_put_back)
        assert (await flow.row(second)).attempts == 0


async def test_attempts_start_again_when_one_gets_somewhere() -> None:
    kept = InMemorySessionStore()
    bench = Bench()
    bench.let_go.set()
    thinking = Held("never")
    model = ScriptedModel(calls(("work", {})), thinking, then="done")
    async with Flow({"agent": an_agent(bench.tool, persist=kept)}, model=model) as flow:
        receipt = await flow.dispatch("go")
        await thinking.reached.wait()

        assert (await flow.row(receipt)).attempts == 0
        thinking.release.set()
        await flow.outcome(receipt)


async def test_attempts_that_get_nowhere_are_counted_all_the_same() -> None:
    """The two journals number their lines differently; only what was appended counts as progress."""
    kept = InMemorySessionStore()
    down = ModelFailure("transient", "model_unavailable", "Down.")
    agent = an_agent(persist=kept, limits={"max_attempts": 1})
    async with Flow({"agent": agent}, model=ScriptedModel("1", "2", "3", down, "never")) as flow:
        for number in range(3):
            await flow.outcome(await flow.dispatch(f"hi {number}"))
        row = await flow.outcome(await flow.dispatch("go"))

        assert row.error is not None
        assert row.error.code == "model_unavailable"
        assert len(flow.model_calls) == 4


class _Full(InMemorySessionStore):
    """A store whose disk is full once it has the input."""

    async def append(self, session: str, expected_head: int, entries: Sequence[bytes]) -> int:
        if expected_head:
            raise StoreUnavailableError("disk is full")
        return await super().append(session, expected_head, entries)


async def test_what_could_not_be_kept_is_no_progress() -> None:
    bench = Bench()
    agent = an_agent(bench.tool, persist=_Full(), limits={"max_attempts": 3})
    async with Flow({"agent": agent}, model=ScriptedModel(then=calls(("work", {})))) as flow:
        receipt = await flow.dispatch("go")
        for _ in range(3):
            await flow.pass_time(10)
        row = await flow.outcome(receipt)

        assert row.error is not None
        assert row.error.code == "attempts_exhausted"
        assert len(flow.model_calls) == 3
        assert bench.began == 0


async def test_the_model_is_told_of_a_request_that_was_stopped_while_nobody_worked_it() -> None:
    kept = InMemorySessionStore()
    busy = ModelFailure("overloaded", "model_overloaded", "Busy.", retry_after=timedelta(minutes=1))
    async with Flow({"agent": an_agent(persist=kept)}, model=ScriptedModel(busy, "hello", "again")) as flow:
        stopped = await flow.dispatch("pay the bill")

        async def is_parked() -> bool:
            return (await flow.row(stopped)).available_at > flow.clock.now()

        await flow.until(is_parked)
        await flow.store.ledger.request_abort(stopped.dispatch_id)
        session_id = (await flow.outcome(stopped)).session_id
        await flow.outcome(await flow.dispatch("hi"))
        await flow.outcome(await flow.dispatch("hi again"))

        assert await kept_kinds(kept, session_id) == ["input", "advisory", "input", "answer", "input", "answer"]
        assert _user_texts(flow.model_calls[1]) == ["pay the bill", STOPPED, "hi"]


async def test_an_abort_outranks_a_final_answer_that_only_that_store_has_and_the_model_is_told() -> None:
    kept = InMemorySessionStore()
    busy = ModelFailure("overloaded", "model_overloaded", "Busy.", retry_after=timedelta(minutes=1))
    async with Flow({"agent": an_agent(persist=kept)}, model=ScriptedModel(busy, "hello")) as flow:
        stopped = await flow.dispatch("pay the bill")

        async def is_parked() -> bool:
            return (await flow.row(stopped)).available_at > flow.clock.now()

        await flow.until(is_parked)
        answer = Raw(encode_entry(AnswerEntry((TextPart("Paid."),), "end_turn", "model")))
        session_id = (await flow.row(stopped)).session_id
        await kept.append(session_id, 1, [msgspec.json.encode(EntryLine(stopped.dispatch_id, answer))])
        await flow.store.ledger.request_abort(stopped.dispatch_id)

        assert (await flow.outcome(stopped)).status == "aborted"
        await flow.outcome(await flow.dispatch("hi"))
        assert _user_texts(flow.model_calls[1]) == ["pay the bill", STOPPED, "hi"]


def _user_texts(request: ModelRequest) -> list[str]:
    messages = [message for message in request.messages if isinstance(message, UserMessage)]
    return [part.text for message in messages for part in message.content if isinstance(part, TextPart)]
