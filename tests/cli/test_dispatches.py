"""``pyflue dispatches``: what there is, what one waits for, aborting and replaying."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from pyflue.events import DispatchParked
from pyflue.stores.protocol import TurnWrite
from tests.cli.operating import Desk, a_worker, address, admit, complete, settle, to_standard


async def test_the_list_is_newest_first_and_can_be_narrowed_and_paged(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        first, second = await complete(runtime, ["one", "two"])
        third = await admit(runtime, "three", address("thread-2"))
        moody = await admit(runtime, "four", address(agent="moody"))

    async def listed(*words: str) -> list[str]:
        return [line["id"] for line in (await desk.run("dispatches", "list", "--json", *words)).objects]

    assert await listed() == [moody, third, second, first]
    assert await listed("--status", "completed") == [second, first]
    assert await listed("--agent", "moody") == [moody]
    assert await listed("--session", address().id) == [second, first]
    assert await listed("--limit", "2", "--before", third) == [second, first]
    assert await listed("--limit", "1") == [moody]


async def test_the_table_has_whole_ids_and_says_who_works_what(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [done] = await complete(runtime, ["where is " + "my order " * 60])

    table = await desk.run("dispatches", "list")
    empty = await desk.run("dispatches", "list", "--status", "failed")

    header, row = table.lines
    assert header.split() == ["ID", "STATUS", "AGENT", "INSTANCE", "AGE", "INPUT"]
    assert row.split()[:4] == [done, "completed", "triage", "thread-1"]
    assert row.endswith("…")
    assert len(row) <= 160
    assert empty.out == "No dispatches.\n"


async def test_a_wrong_filter_is_a_wrong_command_line(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime)

    status = await desk.run("dispatches", "list", "--status", "stuck")
    session = await desk.run("dispatches", "list", "--session", address("nowhere").id)

    assert (status.code, session.code) == (2, 2)
    assert "'stuck' is not one of" in status.err
    assert "is not the id of a session" in session.err


async def test_a_settled_one_shows_input_result_and_replies(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime, "hello", reply=to_standard(), attributes={"sender": "ada"})
        await settle(runtime, dispatch_id)
        [reply] = await runtime.store.views.outbox(dispatch_id=dispatch_id)

    page = await desk.run("dispatches", "show", dispatch_id)
    by_reply = await desk.run("dispatches", "show", reply.id, "--json")

    shown = dict(line.split(maxsplit=1) for line in page.lines[1:] if line.startswith("  "))
    assert page.lines[0] == dispatch_id
    assert (shown["status"], shown["input"], shown["result"]) == ("completed", "hello", "You said: hello")
    assert shown["from"] == "sender ada"
    assert "attempts" not in shown, "what is completed made progress"
    assert any(line.startswith(f"{reply.id}  ") for line in page.lines)
    [report] = by_reply.objects
    assert (report["id"], report["status"], report["result"]["text"]) == (dispatch_id, "completed", "You said: hello")
    assert [(each["id"], each["channel"], each["body"]) for each in report["replies"]] == [
        (reply.id, "standard", "You said: hello")
    ]
    assert report["input"]["reply_channel"] == "standard"
    assert "destination" not in by_reply.out


async def test_a_failed_one_says_why(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime, where=address(agent="moody"))
        row = await settle(runtime, dispatch_id)

    page = await desk.run("dispatches", "show", dispatch_id)

    assert row.error is not None
    assert f"{row.error.code}: " in page.out
    assert "no luck today" in page.out
    assert "1 without progress" in page.out


async def blocker(desk: Desk, dispatch_id: str) -> str:
    return str((await desk.run("dispatches", "show", dispatch_id, "--json")).objects[0]["blocked_by"])


async def test_it_says_what_a_queued_one_waits_for(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        head = await admit(runtime, "one")
        behind = await admit(runtime, "two")
        no_worker = await blocker(desk, head)
        await a_worker(runtime, "another")
        no_agent = await blocker(desk, head)
        await a_worker(runtime, "triage")
        free = await blocker(desk, head)
        second = await blocker(desk, behind)

    assert no_worker == "a worker: none is live"
    assert no_agent == "a worker that has agent 'triage': none of the 1 live ones does"
    assert free == "a free place on a worker"
    assert second == f"{head} (queued): a conversation is worked in order"


async def test_it_says_until_when_and_why_one_is_parked(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)
        worker = await a_worker(runtime, "triage")
        lease = await runtime.store.ledger.claim(address().id, worker, frozenset({"triage"}))
        assert lease is not None
        held = await blocker(desk, dispatch_id)
        await runtime.store.ledger.begin(lease, TurnWrite(dispatch_id, 0), timedelta(hours=1))
        event = DispatchParked("rate_limited", 600_000, "The provider asks to wait.")
        write = TurnWrite(dispatch_id, 0, events=(event,))
        await runtime.store.ledger.park(lease, write, timedelta(minutes=10), refund=True)
        seen = (await runtime.store.ledger.mailbox(lease)).seen
        assert await runtime.store.ledger.release(lease, seen)

    parked = await blocker(desk, dispatch_id)
    table = await desk.run("dispatches", "list")

    assert held == f"the turn that {worker} on host-b is working on"
    assert parked.startswith("parked until 20")
    assert "(in 9 min) because of rate_limited: The provider asks to wait." in parked
    assert "queued, parked" in table.out


async def test_it_says_that_a_dead_worker_holds_it(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)
        worker = await a_worker(runtime, "triage", lease=timedelta(milliseconds=300))
        assert await runtime.store.ledger.claim(address().id, worker, frozenset({"triage"}))
        async with asyncio.timeout(10):
            while not (blocked := await blocker(desk, dispatch_id)).startswith("another worker"):
                pass

    assert blocked == f"another worker to take it over from {worker}, which is dead"


async def test_a_reply_behind_another_says_so(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        first, second = (
            await admit(runtime, "one", reply=to_standard()),
            await admit(runtime, "two", reply=to_standard()),
        )
        await settle(runtime, first)
        await settle(runtime, second)

    waiting = await blocker(desk, second)

    assert f", a reply to {first}, to leave: replies of a session leave in order" in waiting


async def test_an_abort_is_carried_out_by_whoever_works_it(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)

        asked = await desk.run("dispatches", "abort", dispatch_id)
        row = await settle(runtime, dispatch_id)
        again = await desk.run("dispatches", "abort", dispatch_id)

    assert (asked.code, asked.out) == (0, f"{dispatch_id} will be aborted; it is queued now.\n")
    assert row.status == "aborted"
    assert (again.code, again.out) == (0, f"{dispatch_id} is aborted.\n")


async def test_a_completed_one_cannot_be_aborted(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime)

    refused = await desk.run("dispatches", "abort", dispatch_id)

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"pyflue: Dispatch {dispatch_id} is completed already.")


async def test_a_replay_is_a_new_dispatch_with_the_same_input(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime, "hello", role="signal", type="message", attributes={"sender": "ada"})
        first = await settle(runtime, dispatch_id)

        replayed = await desk.run("dispatches", "replay", dispatch_id)
        twice = await desk.run("dispatches", "replay", dispatch_id)
        new = await runtime.store.views.dispatch(replayed.out.strip())
        assert new is not None
        second = await settle(runtime, new.id)

    assert (replayed.code, replayed.err) == (0, "")
    assert twice.out != replayed.out
    assert (new.replay_of, new.input, new.session_id) == (dispatch_id, first.input, first.session_id)
    assert (second.status, first.status) == ("completed", "completed")
    assert f"replay of  {dispatch_id}" in (await desk.run("dispatches", "show", new.id)).out


async def test_an_unsettled_one_is_not_replayed(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)

        refused = await desk.run("dispatches", "replay", dispatch_id)
        totals = await runtime.store.views.totals()

    assert refused.code == 1
    assert "Only a settled dispatch can be run once more." in refused.err
    assert totals.dispatches == {"queued": 1}


async def test_an_unknown_id_is_a_wrong_command_line(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime)

    ended = [await desk.run("dispatches", verb, "dsp_nothing") for verb in ("show", "abort", "replay")]

    assert [done.code for done in ended] == [2, 2, 2]
    assert all(len(done.err.splitlines()) == 1 for done in ended)
