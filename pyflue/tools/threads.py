"""Run a blocking function of the user's without stopping the event loop.

Each call gets a daemon thread of its own rather than a place in asyncio's pool: the pool is small and shared with
name look-ups, so a few slow tools would hold up every turn of the process, and its threads are joined at exit, so
one that hangs would keep a stopping worker alive.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


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

    threading.Thread(target=work, name="pyflue-blocking-call", daemon=True).start()
    return await done


def _report(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], *args: object) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(settle, *args)


def _finish(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def _raise(done: asyncio.Future[T], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
