"""``pyflue sessions`` and ``pyflue workers``: conversations, and who works them."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

from tests.cli.operating import Desk, a_worker, address, admit, complete


async def test_the_list_can_be_narrowed_and_paged(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime, where=address("a"))
        await complete(runtime, where=address("b"))
        await admit(runtime, where=address("c", "moody"))
    ids = sorted([address("a").id, address("b").id, address("c", "moody").id])

    everything = await desk.run("sessions", "list", "--json")
    moody = await desk.run("sessions", "list", "--agent", "moody")
    page = await desk.run("sessions", "list", "--json", "--after", ids[0], "--limit", "1")

    assert [line["id"] for line in everything.objects] == ids
    assert moody.lines[1].split()[:5] == [address("c", "moody").id, "moody", "c", "0", "1"]
    assert [line["id"] for line in page.objects] == [ids[1]]


async def test_one_is_shown_by_its_id_or_its_address(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        ids = await complete(runtime, ["one", "two"])

    by_id = await desk.run("sessions", "show", address().id, "--json")
    by_address = await desk.run("sessions", "show", "--agent", "triage", "--id", "thread-1", "--json")
    page = await desk.run("sessions", "show", address().id)

    assert by_id.out == by_address.out
    [report] = by_id.objects
    assert (report["head"], report["unsettled"], report["entries"]) == (4, 0, [])
    assert [dispatch["id"] for dispatch in report["dispatches"]] == ids
    assert page.lines[0] == address().id
    assert [line.split()[0] for line in page.lines if line.startswith("dsp_")] == ids


async def test_its_entries_are_shown_with_their_kinds(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime, ['[tool:find_order {"order": "17"}]'])

    page = await desk.run("sessions", "show", address().id, "--entries")
    latest = await desk.run("sessions", "show", address().id, "--entries", "--limit", "1", "--json")

    entries = [line.split() for line in page.lines[page.lines.index("") + 1 :] if line[:1].isdigit()]
    assert [entry[3] for entry in entries] == ["input", "answer", "tool_started", "tool_result", "answer"]
    assert '→ find_order({"order": "17"})' in page.out
    assert "find_order done: order 17 has left" in page.out
    [last] = latest.objects[0]["entries"]
    assert (last["seq"], last["kind"], last["entry"]["stop_reason"]) == (5, "answer", "end_turn")


async def test_damaged_and_newer_entries_are_shown_as_that(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime)
    with sqlite3.connect(desk.root / ".pyflue" / "pyflue.sqlite3") as database:
        database.execute("update entries set body = ? where seq = 1", (b"\xff\x00",))
        database.execute("update entries set body = ? where seq = 2", (b'{"kind": "telepathy"}',))
    database.close()

    page = await desk.run("sessions", "show", address().id, "--entries")
    report = await desk.run("sessions", "show", address().id, "--entries", "--json")

    assert "(damaged: these bytes are no entry)" in page.out
    assert "(of a newer release)" in page.out
    assert [entry["entry"] for entry in report.objects[0]["entries"]] == [None, {"kind": "telepathy"}]


async def test_a_session_must_be_named_one_way(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime)

    neither = await desk.run("sessions", "show")
    both = await desk.run("sessions", "show", address().id, "--agent", "triage", "--id", "thread-1")
    half = await desk.run("sessions", "show", "--agent", "triage")
    unknown = await desk.run("sessions", "show", "--agent", "triage", "--id", "nobody")

    assert [done.code for done in (neither, both, half, unknown)] == [2, 2, 2, 2]
    assert "is not the id of a session" in unknown.err


async def test_workers_are_listed_with_what_they_hold(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await admit(runtime)
        worker = await a_worker(runtime, "triage", "moody")
        gone = await a_worker(runtime, "triage", lease=timedelta(microseconds=1))
        assert await runtime.store.ledger.claim(address().id, worker, frozenset({"triage"}))

        table = await desk.run("workers")
        report = await desk.run("workers", "--json")

    rows = {line.split()[0]: line for line in table.lines[1:]}
    assert rows[worker].split()[1:4] == ["host-b", "4711", "live"]
    assert rows[worker].endswith("1         moody, triage")
    assert "live, overdue" in rows[gone]
    assert {line["id"]: line["sessions"] for line in report.objects} == {worker: 1, gone: 0}


async def test_no_workers_is_said_with_how_to_start_one(desk: Desk) -> None:
    async with desk.runtime():
        pass

    done = await desk.run("workers")

    assert (done.code, done.out) == (0, "No workers. Start one with `pyflue worker`, or `pyflue dev`.\n")


async def test_a_host_without_a_worker_at_work_fails_its_health_check(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        worker = runtime.worker()
        await worker.start()
        with_worker = await desk.run("workers", "--here")
        await worker.stop(timedelta(0))
        without_worker = await desk.run("workers", "--here")

    assert with_worker.code == 0
    assert without_worker.code == 1
