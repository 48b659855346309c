"""Calling a tool: never on the loop's time, never out of its own bounds."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from pyflue.errors import ToolError
from pyflue.tools.call import call
from pyflue.tools.define import define_tool, tool
from pyflue.tools.tool import ToolContext


class Signal:
    aborted = False

    async def wait(self) -> None:
        await asyncio.Event().wait()


class Context:
    idempotency_key = "key-1"
    call_id = "call-1"
    dispatch_id = "dsp_1"
    session_id = "ses_1"
    instance_id = "42"
    signal = Signal()
    deadline = 0.0

    async def step(self, name: str, run: Callable[[], Awaitable[Any]]) -> Any:
        return await run()


async def test_an_async_function_is_awaited_with_its_arguments_and_context() -> None:
    @tool
    async def charge(amount: int, ctx: ToolContext, currency: str = "eur") -> str:
        """Charge."""
        return f"{amount} {currency} {ctx.idempotency_key}"

    assert await call(charge, charge.decode(b'{"amount":5}'), Context()) == "5 eur key-1"


async def test_a_sync_function_does_not_stop_the_loop() -> None:
    released = threading.Event()

    @tool
    def wait() -> str:
        """Wait."""
        return "released" if released.wait(20) else "the loop never ran"

    waiting = asyncio.create_task(call(wait, {}, Context()))
    await asyncio.sleep(0)
    released.set()

    assert await waiting == "released"


async def test_more_slow_functions_run_at_once_than_asyncios_pool_has_threads() -> None:
    together = threading.Barrier(40)

    @tool
    def meet() -> int:
        """Meet the others."""
        return together.wait(20)

    results = await asyncio.gather(*(call(meet, {}, Context()) for _ in range(40)))

    assert sorted(results) == list(range(40))


async def test_a_thread_whose_call_has_ended_takes_a_later_one() -> None:
    @tool
    def which() -> int:
        return threading.get_ident()

    used = {await call(which, {}, Context()) for _ in range(20)}

    assert len(used) < 20


async def test_context_variables_reach_the_thread() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    tenant.set("acme")

    @tool
    def whose() -> str:
        """Tell."""
        return tenant.get()

    assert await call(whose, {}, Context()) == "acme"


async def test_a_hand_written_tool_takes_one_mapping_and_what_else_it_asks_for() -> None:
    def execute(arguments: dict[str, Any], context: ToolContext, signal: Any) -> list[Any]:
        return [arguments, context.call_id, signal]

    definition = define_tool("t", execute)
    context = Context()

    assert await call(definition, {"a": 1}, context) == [{"a": 1}, "call-1", context.signal]
    assert await call(define_tool("u", lambda context: context), {"a": 1}, context) == {"a": 1}


async def test_callables_of_every_kind_are_awaited() -> None:
    class Lookup:
        async def __call__(self, arguments: dict[str, Any]) -> str:
            return arguments["q"]

    async def with_prefix(prefix: str, arguments: dict[str, Any]) -> str:
        return prefix + arguments["q"]

    for execute in (Lookup(), functools.partial(with_prefix, ""), lambda arguments: with_prefix("", arguments)):
        assert await call(define_tool("t", execute), {"q": "x"}, Context()) == "x"


async def test_what_the_function_raises_comes_out() -> None:
    @tool
    def fail(sync: bool) -> str:
        """Fail."""
        raise KeyError("sync")

    with pytest.raises(KeyError, match="sync"):
        await call(fail, {"sync": True}, Context())


async def test_a_stop_iteration_does_not_hang_the_call() -> None:
    @tool
    def first() -> str:
        """Take the first of nothing."""
        return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(call(first, {}, Context()), 20)


async def test_a_tool_cannot_end_the_process() -> None:
    @tool
    def leave() -> None:
        """Leave."""
        sys.exit(3)

    @tool
    async def leave_async() -> None:
        """Leave."""
        raise SystemExit

    for definition in (leave, leave_async):
        with pytest.raises(ToolError, match="tried to end the process"):
            await call(definition, {}, Context())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, type("Exit", (BaseException,), {})])
async def test_what_no_except_exception_catches_stays_within_the_call(kind: type[BaseException]) -> None:
    @tool
    def leave() -> None:
        """Leave."""
        raise kind("now")

    @tool
    async def leave_async() -> None:
        """Leave."""
        raise kind("now")

    for definition in (leave, leave_async):
        with pytest.raises(ToolError, match=f"{kind.__name__}: now"):
            await call(definition, {}, Context())


async def test_a_generator_exit_of_a_tool_stays_within_the_call() -> None:
    @tool
    async def leave() -> str:
        """Leave as a generator does."""
        raise GeneratorExit

    with pytest.raises(ToolError, match="GeneratorExit"):
        await call(leave, {}, Context())


async def test_a_tool_that_refuses_to_be_cancelled_is_left_alone_after_a_while() -> None:
    reached, let_go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Refuse to stop."""
        reached.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "finally"

    waiting = asyncio.create_task(call(stubborn, {}, Context(), cancelled_within=0.02))
    await reached.wait()
    waiting.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert not ended.is_set()
    let_go.set()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_a_cancelled_tool_may_put_its_things_in_order_before_its_call_ends() -> None:
    reached, orderly = asyncio.Event(), False

    @tool
    async def tidy() -> str:
        """Tidy up at the end."""
        nonlocal orderly
        try:
            reached.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            orderly = True
        return "never"

    waiting = asyncio.create_task(call(tidy, {}, Context()))
    await reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert orderly


async def test_a_tool_that_cancels_itself_fails_and_does_not_stop_the_turn() -> None:
    @tool
    async def inner() -> None:
        """Await something that was cancelled."""
        raise asyncio.CancelledError

    with pytest.raises(ToolError, match="cancelled from within"):
        await call(inner, {}, Context())


async def test_cancelling_the_call_stops_the_wait_at_once_even_for_a_blocked_function() -> None:
    started, released = threading.Event(), threading.Event()

    @tool
    def block() -> None:
        """Block."""
        started.set()
        released.wait(20)

    waiting = asyncio.create_task(call(block, {}, Context()))
    await asyncio.to_thread(started.wait, 20)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 10)
    released.set()


def test_a_hung_function_does_not_keep_the_process_alive() -> None:
    import subprocess

    script = """
import asyncio, threading
from pyflue.tools.threads import run_in_thread
started = threading.Event()
def hang():
    started.set()
    threading.Event().wait()
async def main():
    task = asyncio.create_task(run_in_thread(hang))
    await asyncio.to_thread(started.wait)
    task.cancel()
asyncio.run(main())
print("out")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)

    assert done.stdout == "out\n"
    assert done.returncode == 0
