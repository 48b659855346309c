"""Front and worker in one event loop: what `pyflue dev` and `pyflue demo` run."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from importlib import import_module

from msgspec import Struct

from pyflue.bells.local import LocalBell
from pyflue.config import Project
from pyflue.runtime import Runtime, open_runtime


class Embedded(Struct, frozen=True):
    """A running front and worker; ``url`` is where the front listens."""

    runtime: Runtime
    url: str


@asynccontextmanager
async def open_embedded(project: Project, host: str, port: int, drain: timedelta) -> AsyncGenerator[Embedded]:
    """Run the whole of PyFlue inside the block: the embedded store, a worker, and the front at ``host:port``.

    Raises:
        ConfigurationError: the settings cannot be used, or the address is taken.
    """
    bell = LocalBell()
    async with open_runtime(project, bell=bell) as runtime:
        worker = runtime.worker()
        await worker.start()
        bell.wake = worker.wake
        try:
            async with _front()(runtime, host, port) as bound:
                yield Embedded(runtime, f"http://{host}:{bound}")
        finally:
            await worker.stop(drain)


def _front() -> Callable[[Runtime, str, int], AbstractAsyncContextManager[int]]:
    """Load the front, which is a package of its own; pyflue itself must not import it."""
    found: Callable[[Runtime, str, int], AbstractAsyncContextManager[int]] = import_module("pyflue_web.embedded").front
    return found


async def until_told_to_stop() -> None:
    """Return at the first SIGTERM or SIGINT."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
