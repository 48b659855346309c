"""Run a blocking function of the user's without stopping the event loop.

Each call gets a daemon thread to itself rather than a place in asyncio's pool: the pool is small and shared with
name look-ups, so a few slow tools would hold up every turn of the process, and its threads are joined at exit, so
one that hangs would keep a stopping worker alive. A thread whose call has ended takes a later one: starting one for
each would cost more than most initializers do.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")
IDLE_SECONDS: Final = 10.0  # a thread without a call ends after so long


class _Thread:
    """A daemon thread that runs what it is given, one call at a time."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._run, name="pyflue-blocking-call", daemon=True).start()

    def _run(self) -> None:
        timeout: float | None = None
        while True:
            try:
                call = self.calls.get(timeout=timeout)
            except Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # taken a moment ago: its call is on the way
                    timeout = None
                    continue
                return
            call()
            del call  # it holds what the caller gave, which may be large
            timeout = IDLE_SECONDS
            _idle.append(self)


async def run_in_thread(run: Callable[[], T]) -> T:
    """Call ``run`` in a thread, with the caller's context variables, and return or raise what it does.

    Cancelling stops the wait, not the thread: what the function is doing goes on until it returns.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(run)
        except StopIteration as error:  # a Future cannot carry it: the caller would wait for ever
            _report(loop, _raise, done, RuntimeError(f"StopIteration: {error}"))
        except BaseException as error:  # noqa: BLE001 - carried to the caller, not handled here
            _report(loop, _raise, done, error)
        else:
            _report(loop, _finish, done, result)

    _hand_over(work)
    return await done


_idle: Final[list[_Thread]] = []  # threads without a call; the last to become idle is taken first


def _hand_over(call: Callable[[], None]) -> None:
    try:
        thread = _idle.pop()
    except IndexError:
        thread = _Thread()
    thread.calls.put(call)


def _report(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], *args: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle, *args)


def _finish(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _raise(done: asyncio.Future[T], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
