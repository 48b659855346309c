"""Prompting from code of one's own: the same meaning in every process, whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pyflue import (
    ConfigurationError,
    DispatchAbortedError,
    DispatchFailedError,
    IdempotencyConflictError,
    InvalidInputError,
    PyFlueEvent,
    SelfPromptError,
    create_agent,
    init_agent,
    tool,
)
from pyflue.bells import listeners
from pyflue.config import AgentsSettings, Project, Secrets, Settings, StorageSettings, WorkerSettings
from pyflue.dispatches import DispatchInput
from pyflue.errors import StoreUnavailableError
from pyflue.models.protocol import ModelFailure
from pyflue.runtime import Runtime, open_runtime, use_runtime
from pyflue.stores.protocol import DispatchQuery
from pyflue.testing.faults import Faults, faulty
from pyflue.testing.flow import Flow
from pyflue.testing.models import Held, ScriptedModel, calls
from tests.waiting import until

ECHO = create_agent(lambda: {"model": "offline/echo"}, name="echo")
SCRIPTED = create_agent(lambda: {"model": "scripted/any"}, name="scripted")
FAST = WorkerSettings(heartbeat=0.02, rescue=0.02, lease=2.0, fence_margin=0.5, grace=0.3, judge_pause=0.05)


def project_at(url: str, root: Path) -> Project:
    settings = Settings(storage=StorageSettings(url=url), worker=FAST, agents=AgentsSettings(model="offline/echo"))
    return Project(root, settings, Secrets(), {})


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with open_runtime(project_at("memory:", tmp_path)) as runtime:
        use_runtime(runtime)  # the fixture's context is not the test's
        yield runtime


async def prompt(runtime: Runtime, text: str, **named: str) -> str:
    use_runtime(runtime)
    session = await (await init_agent(ECHO)).session()
    return (await session.prompt(text, **named)).text


async def test_a_prompt_waits_for_the_answer_and_says_what_it_cost(runtime: Runtime) -> None:
    use_runtime(runtime)
    session = await (await init_agent(ECHO, id="ada")).session()
    result = await session.prompt("hello there")

    assert result.text == "You said: hello there"
    assert result.usage.total_tokens > 0
    assert result.model.id == "offline/echo"
    assert result.metadata["session_id"] == session.address.id
    row = await runtime.store.views.dispatch(result.metadata["dispatch_id"])  # type: ignore[arg-type]
    assert row is not None
    assert row.status == "completed"


async def test_the_same_key_gives_the_recorded_result_and_asks_nobody(runtime: Runtime) -> None:
    use_runtime(runtime)
    model = ScriptedModel("once", "twice")
    runtime.models.register("scripted", model)
    session = await (await init_agent(SCRIPTED)).session()
    first = await session.prompt("go", idempotency_key="order-17")
    again = await session.prompt("go", idempotency_key="order-17")
    without = await session.prompt("go")

    assert [first.text, again.text, without.text] == ["once", "once", "twice"]
    assert first.metadata == again.metadata
    assert len(model.requests) == 2


async def test_the_same_key_with_another_text_is_a_conflict(runtime: Runtime) -> None:
    await prompt(runtime, "go", idempotency_key="k")

    with pytest.raises(IdempotencyConflictError):
        await prompt(runtime, "stop", idempotency_key="k")


async def test_a_key_belongs_to_its_session(runtime: Runtime) -> None:
    use_runtime(runtime)
    agent = await init_agent(ECHO)
    one, two = await agent.session("one"), await agent.session("two")

    assert (await one.prompt("1", idempotency_key="k")).text == "You said: 1"
    assert (await two.prompt("2", idempotency_key="k")).text == "You said: 2"


async def test_prompting_at_the_same_time_with_one_key_does_the_work_once(runtime: Runtime) -> None:
    use_runtime(runtime)
    model = ScriptedModel("once")
    runtime.models.register("scripted", model)
    session = await (await init_agent(SCRIPTED)).session()
    results = await asyncio.gather(*(session.prompt("go", idempotency_key="k") for _ in range(5)))

    assert {result.text for result in results} == {"once"}
    assert len(model.requests) == 1


async def test_prompts_of_one_session_follow_each_other_without_a_pause(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "LISTEN_SECONDS", 60.0)  # nobody looks by himself
    use_runtime(runtime)
    session = await (await init_agent(ECHO)).session()

    async with asyncio.timeout(20):
        results = await asyncio.gather(*(session.prompt(f"{number}") for number in range(20)))

    assert {result.text for result in results} == {f"You said: {number}" for number in range(20)}


async def test_a_prompt_waits_its_turn_behind_what_was_queued_and_works_it_if_nobody_does(runtime: Runtime) -> None:
    use_runtime(runtime)
    model = ScriptedModel("to the first", "to the second")
    runtime.models.register("scripted", model)
    session = await (await init_agent(SCRIPTED)).session()
    queued = await runtime.admitter.dispatch(session.address, DispatchInput("first"))
    result = await session.prompt("second")

    assert result.text == "to the second"
    row = await runtime.store.views.dispatch(queued.dispatch_id)
    assert row is not None
    assert row.result is not None
    assert row.result.text == "to the first"


async def test_a_prompt_is_answered_by_a_worker_that_is_there_already(runtime: Runtime) -> None:
    use_runtime(runtime)
    held = Held("from the worker")
    runtime.models.register("scripted", ScriptedModel(held))
    session = await (await init_agent(SCRIPTED)).session()
    worker = runtime.worker()
    await worker.start()
    runtime.bell.wake = worker.wake  # type: ignore[attr-defined]
    asking = asyncio.create_task(session.prompt("go"))
    await held.reached.wait()
    held.release.set()

    assert (await asking).text == "from the worker"
    await worker.stop(timedelta(seconds=1))


async def test_a_failure_is_raised_with_its_reason(runtime: Runtime) -> None:
    use_runtime(runtime)
    runtime.models.register("scripted", ScriptedModel(ModelFailure("fatal", "model_unauthorized", "No such key.")))
    session = await (await init_agent(SCRIPTED)).session()
    with pytest.raises(DispatchFailedError) as raised:
        await session.prompt("go", idempotency_key="k")
    with pytest.raises(DispatchFailedError):
        await session.prompt("go", idempotency_key="k")

    assert raised.value.reason_code == "model_unauthorized"
    assert "pyflue logs" in str(raised.value)


async def test_an_aborted_prompt_raises_and_aborting_again_finds_nothing(runtime: Runtime) -> None:
    use_runtime(runtime)
    held = Held("never")
    runtime.models.register("scripted", ScriptedModel(held))
    session = await (await init_agent(SCRIPTED)).session()
    asking = asyncio.create_task(session.prompt("go"))
    await held.reached.wait()

    assert await session.abort()
    with pytest.raises(DispatchAbortedError):
        await asking
    assert not await session.abort()


async def test_a_tool_cannot_prompt_the_session_it_runs_in(runtime: Runtime) -> None:
    use_runtime(runtime)
    caught: list[Exception] = []

    @tool
    async def ask_myself() -> str:
        """Ask."""
        session = await (await init_agent(agent)).session()
        try:
            return (await session.prompt("hello me")).text
        except SelfPromptError as error:
            caught.append(error)
            raise

    agent = create_agent(lambda: {"model": "scripted/any", "tools": [ask_myself]}, name="thinker")
    runtime.models.register("scripted", ScriptedModel(calls(("ask_myself", {})), "I must not."))
    result = await (await (await init_agent(agent)).session()).prompt("go")

    assert result.text == "I must not."
    assert len(caught) == 1


async def test_a_tool_may_prompt_another_session(runtime: Runtime) -> None:
    use_runtime(runtime)

    @tool
    async def ask_echo(text: str) -> str:
        """Ask another agent."""
        return (await (await (await init_agent(ECHO)).session()).prompt(text)).text

    asker = create_agent(lambda: {"model": "scripted/any", "tools": [ask_echo]}, name="asker")
    model = ScriptedModel(calls(("ask_echo", {"text": "knock knock"})), "done")
    runtime.models.register("scripted", model)
    result = await (await (await init_agent(asker)).session()).prompt("go")

    assert result.text == "done"
    assert "You said: knock knock" in str(model.requests[1].messages)


async def test_a_tool_that_runs_again_does_not_prompt_again() -> None:
    reached, let_go = asyncio.Event(), asyncio.Event()

    @tool(retry="safe")
    async def ask_twice() -> str:
        """Ask another agent the same thing twice."""
        other = await (await init_agent(helper)).session()
        answers = [(await other.prompt("what now?")).text for _ in range(2)]
        reached.set()
        await let_go.wait()
        return ", ".join(answers)

    helper = create_agent(lambda: {}, name="helper")
    asker = create_agent(lambda: {"tools": [ask_twice]}, name="asker")
    model = ScriptedModel(calls(("ask_twice", {})), "wait", "now go", "done", "too often")
    async with Flow({"asker": asker, "helper": helper}, model=model) as flow:
        use_runtime(flow.runtime)
        receipt = await flow.dispatch("go")
        await reached.wait()
        reached.clear()
        await flow.take_over()
        await reached.wait()
        let_go.set()
        row = await flow.outcome(receipt)

        assert row.result is not None
        assert row.result.text == "done"
        assert "wait, now go" in str(flow.model_calls[3].messages)
        await flow.runtime.close()


async def test_what_a_tool_prompts_in_a_worker_goes_to_that_workers_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a runtime of its own would be opened

    @tool
    async def ask_helper() -> str:
        """Ask another agent."""
        return (await (await (await init_agent(helper)).session()).prompt("what now?")).text

    helper = create_agent(lambda: {}, name="helper")
    asker = create_agent(lambda: {"tools": [ask_helper]}, name="asker")
    model = ScriptedModel(calls(("ask_helper", {})), "wait", "done")
    async with Flow({"asker": asker, "helper": helper}, model=model) as flow:
        row = await flow.outcome(await flow.dispatch("go"))
        asked = await flow.store.views.dispatches(DispatchQuery(agent="helper"))
        await flow.runtime.close()

    assert row.result is not None
    assert row.result.text == "done"
    assert [each.status for each in asked] == ["completed"]


async def test_a_runtime_is_not_used_on_another_event_loop(runtime: Runtime) -> None:
    use_runtime(runtime)
    opened = await (await init_agent(ECHO)).session()

    async def opening() -> str:
        return (await (await init_agent(ECHO)).session()).session_id

    def in_a_thread(asking: Callable[[], Coroutine[None, None, object]]) -> object:
        return asyncio.run(asking())

    for asking in (opening, lambda: opened.prompt("hi")):
        with pytest.raises(ConfigurationError, match="another event loop"):
            await asyncio.to_thread(in_a_thread, asking)
    assert (await opened.prompt("hi")).text == "You said: hi"


async def test_on_event_sees_everything_in_order_and_may_be_async(runtime: Runtime) -> None:
    use_runtime(runtime)
    seen: list[PyFlueEvent] = []

    async def watch(event: PyFlueEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event)

    session = await (await init_agent(ECHO, on_event=watch)).session()
    result = await session.prompt("hi")

    assert [event.type for event in seen] == [
        "dispatch.accepted",
        "dispatch.started",
        "turn.answered",
        "dispatch.settled",
    ]
    assert {event.data["dispatch_id"] for event in seen} == {result.metadata["dispatch_id"]}


async def test_an_observer_that_fails_harms_nobody(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    use_runtime(runtime)
    seen: list[str] = []

    def watch(event: PyFlueEvent) -> None:
        seen.append(event.type)
        raise RuntimeError("a bug in the observer")

    session = await (await init_agent(ECHO, on_event=watch)).session()

    assert (await session.prompt("hi")).text == "You said: hi"
    assert len(seen) == 4
    assert "observer.failed" in caplog.text


async def test_a_store_that_goes_away_while_waiting_is_waited_for(tmp_path: Path) -> None:
    async with open_runtime(project_at("memory:", tmp_path)) as runtime:
        faults = Faults()
        spoiled = Runtime(runtime.project, faulty(runtime.store, faults), runtime.bell, runtime.registry, {})
        use_runtime(spoiled)
        session = await (await init_agent(ECHO)).session()
        faults.fail("views.dispatch", StoreUnavailableError(), times=2)
        faults.fail("ledger.claim", StoreUnavailableError(), when="after")

        assert (await session.prompt("hi")).text == "You said: hi"
        assert faults.calls["fleet.disown"] >= 1


async def test_a_prompt_that_was_cancelled_goes_on_under_its_key(runtime: Runtime) -> None:
    use_runtime(runtime)
    held = Held("never")
    runtime.models.register("scripted", ScriptedModel(held, "resumed"))
    session = await (await init_agent(SCRIPTED)).session()
    asking = asyncio.create_task(session.prompt("go", idempotency_key="k"))
    await held.reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert (await session.prompt("go", idempotency_key="k")).text == "resumed"


UNUSABLE: Any = ("  ", "x" * 513, "a\x00b", "\ud83d", 7)


async def test_what_cannot_be_an_agent_an_id_a_key_or_a_payload_is_refused_in_words(runtime: Runtime) -> None:
    use_runtime(runtime)
    with pytest.raises(ConfigurationError, match="requires a created agent"):
        await init_agent("echo")  # type: ignore[arg-type]
    opened = await init_agent(ECHO)
    for bad in (*UNUSABLE, ""):
        with pytest.raises(InvalidInputError, match="instance id"):
            await init_agent(ECHO, id=bad)
        with pytest.raises(InvalidInputError, match="idempotency key"):
            await (await opened.session()).prompt("hi", idempotency_key=bad)
    for bad in UNUSABLE:
        with pytest.raises(InvalidInputError, match="session name"):
            await opened.session(bad)
    with pytest.raises(InvalidInputError, match="JSON"):
        await init_agent(ECHO, payload=object())
    session = await (await init_agent(ECHO)).session()
    with pytest.raises(InvalidInputError, match="surrogate"):
        await session.prompt("\ud83d")
    with pytest.raises(InvalidInputError, match="bytes"):
        await session.prompt(b"hi")  # type: ignore[arg-type]


async def test_a_payload_reaches_the_initializer_in_the_worker(runtime: Runtime) -> None:
    use_runtime(runtime)
    agent = create_agent(
        lambda context: {"model": "scripted/any", "instructions": f"{context.id} likes {context.payload['food']}."},
        name="cook",
    )
    model = ScriptedModel("ok")
    runtime.models.register("scripted", model)
    session = await (await init_agent(agent, id="ada", payload={"food": "figs"})).session()
    await session.prompt("hi")

    assert model.requests[0].system == "ada likes figs."


SCRIPT = """
import asyncio, sys
from pathlib import Path
from pyflue import create_agent, init_agent, open_runtime, tool
from pyflue.config import AgentsSettings, Project, Secrets, Settings, StorageSettings, WorkerSettings

folder = Path(sys.argv[1])

@tool(retry="safe")
async def slow() -> str:
    "Take a while."
    (folder / f"started-{len(list(folder.glob('started-*')))}").touch()
    while not (folder / "go").exists():
        await asyncio.sleep(0.01)
    return "slept"

agent = create_agent(lambda: {"model": "offline/echo", "tools": [slow]}, name="sleeper")

async def main():
    worker = WorkerSettings(heartbeat=0.1, rescue=0.1, lease=3.0, fence_margin=0.5, grace=0.3, judge_pause=0.1)
    settings = Settings(storage=StorageSettings(url=f"sqlite:///{folder}/db.sqlite3"), worker=worker)
    async with open_runtime(Project(folder, settings, Secrets(), {})):
        session = await (await init_agent(agent)).session()
        result = await session.prompt("[tool:slow]", idempotency_key="job-1")
        print(result.text, result.metadata["dispatch_id"])

asyncio.run(main())
"""


async def test_a_script_that_was_killed_resumes_under_its_key_when_it_is_run_again(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)

    async def run() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, str(script), str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1]
        )

    first = await run()
    await until((tmp_path / "started-0").exists, 30)
    os.kill(first.pid, signal.SIGKILL)
    await first.communicate()
    second = await run()
    await until((tmp_path / "started-1").exists, 30)
    (tmp_path / "go").touch()
    out, _ = await second.communicate()
    third = await run()
    again, _ = await third.communicate()

    assert b"slow answered: slept" in out
    assert (second.returncode, third.returncode) == (0, 0)
    assert again == out
    assert not (tmp_path / "started-2").exists()
