"""``pyflue logs``: what happened to a dispatch, from any host, as it happens."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import redis.asyncio

from pyflue.ids import DispatchId
from pyflue.runtime import Runtime
from pyflue.stores.choose import open_store
from pyflue.testing.platforms import STANDARD_SECRET, FakePlatforms
from tests.cli.operating import Desk, address, admit, complete, make_desk, settle, to_standard
from tests.services import OwnPostgres, free_port
from tests.waiting import until


async def aborted(runtime: Runtime) -> DispatchId:
    dispatch_id = await admit(runtime)
    await runtime.store.ledger.request_abort(dispatch_id)
    await settle(runtime, dispatch_id)
    return dispatch_id


async def failed(runtime: Runtime) -> DispatchId:
    dispatch_id = await admit(runtime, where=address(agent="moody"))
    assert (await settle(runtime, dispatch_id)).status == "failed"
    return dispatch_id


async def next_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode()


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Wait for a command's end; return its exit code, the rest of its output, and its errors."""
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_every_event_is_one_json_object_as_the_store_has_it(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime, ['[tool:find_order {"order": "17"}]'])
        stored = await runtime.store.events.read(dispatch_id)

    done = await desk.run("logs", dispatch_id, "--json")

    assert (done.code, done.err) == (0, "")
    assert [(line["stream"], line["seq"], line["type"]) for line in done.objects] == [
        (dispatch_id, event.seq, event.type) for event in stored
    ]
    assert [line["data"] for line in done.objects] == [json.loads(bytes(event.data)) for event in stored]
    assert all(set(line) == {"stream", "seq", "at", "type", "data"} for line in done.objects)
    assert {"tool.started", "tool.finished", "dispatch.settled"} <= {line["type"] for line in done.objects}


async def test_for_people_each_event_is_a_line_with_its_number_time_type_and_fields(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime, ["hello there"])

    done = await desk.run("logs", dispatch_id)

    assert done.lines[0].startswith(f"{dispatch_id}  triage thread-1 default  accepted 20")
    answered = next(line for line in done.lines if "turn.answered" in line)
    assert 'preview="You said: hello there"' in answered
    assert "model=offline/echo" in answered
    assert "\x1b" not in done.out


async def test_from_leaves_out_what_came_before(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime)

    everything = await desk.run("logs", dispatch_id, "--json")
    rest = await desk.run("logs", dispatch_id, "--json", "--from", "3")

    assert rest.lines == everything.lines[2:]
    assert rest.objects[0]["seq"] == 3


async def test_the_exit_code_tells_the_outcome(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        ids = {
            0: [*(await complete(runtime)), await admit(runtime, where=address("unsettled"))],
            3: [await failed(runtime)],
            4: [await aborted(runtime)],
        }

    codes = {code: {(await desk.run("logs", each)).code for each in dispatches} for code, dispatches in ids.items()}

    assert codes == {0: {0}, 3: {3}, 4: {4}}


async def test_an_unknown_id_is_a_wrong_command_line(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime)

    for unknown in ("dsp_0000000000000000000000000a", "ses_0000000000000000000000000a", "nonsense", dispatch_id[:-1]):
        done = await desk.run("logs", unknown)
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1
        assert unknown in done.err


async def test_without_a_database_it_says_so_in_one_message(desk: Desk) -> None:
    done = await desk.run("logs", "dsp_0000000000000000000000000a")
    absent = await desk.run(
        "logs",
        "dsp_0000000000000000000000000a",
        env={"PYFLUE_DATABASE_URL": f"postgresql://ada:hunter2@127.0.0.1:{free_port()}/pyflue"},
    )

    assert (done.code, absent.code) == (1, 1)
    assert "pyflue migrate" in done.err
    assert "Traceback" not in done.err + absent.err
    assert absent.err.startswith("pyflue: The store cannot be reached.")
    assert len(absent.err.splitlines()) == 1
    assert "hunter2" not in absent.err


async def test_a_session_shows_its_dispatches_in_order(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        ids = await complete(runtime, ["one", "two", "three"])
        await complete(runtime, ["elsewhere"], address("thread-2"))

    done = await desk.run("logs", address().id, "--json")
    refused = await desk.run("logs", address().id, "--from", "2")

    assert list(dict.fromkeys(line["stream"] for line in done.objects)) == ids
    assert refused.code == 2
    assert "--from" in refused.err


async def test_a_reply_leads_to_its_dispatch(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime, reply=to_standard())
        await settle(runtime, dispatch_id)
        [reply] = await runtime.store.views.outbox(dispatch_id=dispatch_id)

    done = await desk.run("logs", reply.id, "--json")

    assert {line["stream"] for line in done.objects} == {dispatch_id}


async def test_what_was_said_cannot_command_the_terminal(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime, ["\x1b[2J\x07 [bold]loud[/bold] \u202e日本 \x9b31m"])

    done = await desk.run("logs", dispatch_id)

    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(done.out)
    assert "\\x1b[2J\\x07 [bold]loud[/bold] \\u202e日本 \\x9b31m" in done.out


async def test_following_goes_on_until_the_reply_is_out(tmp_path: Path) -> None:
    async with FakePlatforms() as fake:
        desk = make_desk(tmp_path, reply_url=fake.reply_url)
        async with desk.runtime() as runtime:
            dispatch_id = await admit(runtime, reply=to_standard(fake.reply_url))
            following = await desk.start("logs", "-f", dispatch_id, "--json")
            first = await next_line(following)
            worker = runtime.worker()
            await worker.start()
            code, out, err = await ended(following)
            await worker.stop(timedelta(seconds=5))

    types = [json.loads(line)["type"] for line in (first + out).splitlines()]
    assert (code, err) == (0, "")
    assert (types[0], types[-1]) == ("dispatch.accepted", "reply.sent")
    assert STANDARD_SECRET not in out


async def test_following_a_session_goes_on_with_what_arrives_meanwhile(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        first = await admit(runtime, "one")
        following = await desk.start("logs", "--follow", address().id, "--json")
        line = await next_line(following)
        second = await admit(runtime, "two")
        await settle(runtime, first)
        await settle(runtime, second)
        code, out, _ = await ended(following)

    lines = [json.loads(each) for each in (line + out).splitlines()]
    assert list(dict.fromkeys(each["stream"] for each in lines)) == [first, second]
    assert lines[-1]["type"] == "dispatch.settled"
    assert code == 0


async def test_following_ends_with_the_outcome_as_exit_code(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)
        following = await desk.start("logs", "-f", dispatch_id)
        await next_line(following)
        await runtime.store.ledger.request_abort(dispatch_id)
        await settle(runtime, dispatch_id)
        code, out, _ = await ended(following)

    assert code == 4
    assert "outcome=aborted" in out


async def test_control_c_ends_it_quietly(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)
    following = await desk.start("logs", "-f", dispatch_id)
    await next_line(following)
    await next_line(following)

    following.send_signal(signal.SIGINT)

    assert await ended(following) == (130, "", "")


async def test_a_closed_pipe_ends_it_quietly(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)
        quoted = f"{desk.root / 'err'}"
        script = f'"$@" 2>{quoted} | head -n 1; echo "${{PIPESTATUS[0]}}"'
        reading = await asyncio.create_subprocess_exec(
            *("bash", "-c", script, "-", desk.python, "-m", "pyflue.cli", "logs", "-f", dispatch_id),
            cwd=desk.root,
            env=desk.env,
            stdout=asyncio.subprocess.PIPE,
        )
        title = await next_line(reading)
        await settle(runtime, dispatch_id)
        async with asyncio.timeout(20):
            out, _ = await reading.communicate()

    assert dispatch_id in title
    assert out.decode().strip() == "141"
    assert (desk.root / "err").read_text() == ""


@pytest.mark.parametrize("broker", ["redis", "absent"])
async def test_on_postgres_a_follower_sees_every_event_with_and_without_redis(
    tmp_path: Path, fresh_postgres_dsn: str, redis_url: str, redis_namespace: str, broker: str
) -> None:
    env = {
        "PYFLUE_DATABASE_URL": fresh_postgres_dsn,
        "PYFLUE_REDIS_URL": redis_url if broker == "redis" else f"redis://127.0.0.1:{free_port()}/0",
        "PYFLUE_REDIS_NAMESPACE": redis_namespace,
    }
    desk = make_desk(tmp_path, env)
    await migrate(fresh_postgres_dsn)
    async with desk.runtime() as runtime:
        dispatch_id = await admit(runtime)
        following = await desk.start("logs", "-f", dispatch_id, "--json")
        first = await next_line(following)
        if broker == "redis":
            await until_subscribed(redis_url, f"{redis_namespace}:events:{dispatch_id}")
        await settle(runtime, dispatch_id)
        code, out, err = await ended(following)
        stored = await runtime.store.events.read(dispatch_id)

    assert (code, err) == (0, "")
    assert [json.loads(line)["seq"] for line in (first + out).splitlines()] == [event.seq for event in stored]
    assert stored[-1].type == "dispatch.settled"


@pytest.mark.slow
async def test_following_outlives_a_restart_of_the_database(tmp_path: Path) -> None:
    with OwnPostgres() as postgres:
        desk = make_desk(tmp_path, {"PYFLUE_DATABASE_URL": postgres.dsn})
        await migrate(postgres.dsn)
        async with desk.runtime() as runtime:
            dispatch_id = await admit(runtime)
        following = await desk.start("logs", "-f", dispatch_id, "--json")
        first = await next_line(following)
        await asyncio.to_thread(postgres.kill)
        await asyncio.to_thread(postgres.start)
        async with desk.runtime() as runtime:
            await settle(runtime, dispatch_id)
            code, out, err = await ended(following)
            stored = await runtime.store.events.read(dispatch_id)

    assert (code, err) == (0, "")
    assert [json.loads(line)["seq"] for line in (first + out).splitlines()] == [event.seq for event in stored]


async def migrate(dsn: str) -> None:
    store = open_store(dsn, pool=1)
    await store.migrate()
    await store.close()


async def until_subscribed(url: str, channel: str) -> None:
    """Wait until somebody listens to a pub/sub channel."""
    client = redis.asyncio.Redis.from_url(url)

    async def subscribed() -> bool:
        counted: list[tuple[bytes, int]] = await client.pubsub_numsub(channel)
        return counted[0][1] > 0

    try:
        await until(subscribed)
    finally:
        await client.aclose()
