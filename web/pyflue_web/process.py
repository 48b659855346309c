"""The front as a process: receive, verify, admit, ring. It loads no agent and calls no model."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import uvloop

from pyflue.bells.local import LocalBell
from pyflue.bells.protocol import Bell
from pyflue.bells.redis import RedisBell
from pyflue.channels.choose import build_channels, unbuilt_channels
from pyflue.clock import Clock, SystemClock
from pyflue.config import Project
from pyflue.errors import StoreUnavailableError
from pyflue.ids import Ids
from pyflue.mailbox.admit import Admitter
from pyflue.observers.logs import configure, log
from pyflue.runtime import is_embedded, settle_in
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import Store
from pyflue_web.deps import WebDeps
from pyflue_web.serving import BACKLOG, listen, serve_until_stopping

START_FOR: Final = 30.0  # seconds an unreachable store is waited for at the start
START_PAUSE: Final = 0.5  # seconds between those tries


def serve(project: Project, *, host: str | None = None, port: int | None = None) -> None:
    """Run the front until SIGTERM or SIGINT, then answer what is under way. Blocks.

    ``host`` and ``port`` override the settings; port 0 picks a free one, which ``web.started`` names. Raises:
        ConfigurationError: the settings or the address cannot be used.
        SchemaError: the database needs another schema than this release's.
        StoreUnavailableError: the store could not be reached for 30 seconds.
    """
    configure(project.settings.log, sys.stderr, project.secrets.all)
    web = project.settings.web
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(project, web.host if host is None else host, web.port if port is None else port))


async def _serve(project: Project, host: str, port: int) -> None:
    listening = listen(host, port)
    try:
        async with open_front(project) as deps:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, deps.stopping.set)
            settle_in()
            listening.listen(BACKLOG)  # only now: until here a balancer is refused and goes elsewhere
            log("web.started", host=host, port=int(listening.getsockname()[1]), channels=",".join(deps.channels))
            await serve_until_stopping(deps, listening)
            log("web.stopped")
    finally:
        listening.close()


@asynccontextmanager
async def open_front(project: Project) -> AsyncGenerator[WebDeps]:
    """Build and open the parts of a front; at the end finish every admission under way, then close them.

    Raises: as ``serve``.
    """
    settings = project.settings
    clock = SystemClock()
    ids = Ids(clock)
    channels = build_channels(settings.channels, project.secrets, timeout=settings.outbox.timeout)
    for name, reason in unbuilt_channels(settings.channels, project.secrets).items():
        log("channel.missing", level="warning", channel=name, reason=reason)
    async with AsyncExitStack() as stack:
        store = open_store(project.database_url, pool=settings.storage.pool)
        stack.push_async_callback(store.close)
        await _open(store, project, clock)
        bell, ping_broker = _bell(project)
        await bell.open()
        stack.push_async_callback(bell.close)
        for channel in channels.values():
            stack.push_async_callback(channel.close)
        admitter = Admitter(store, bell, clock, ids, settings.queue.limits)
        stack.push_async_callback(admitter.close)
        yield WebDeps(admitter, channels, settings, store, clock, ids, asyncio.Event(), ping_broker)


async def _open(store: Store, project: Project, clock: Clock) -> None:
    """Open the store, waiting for one that is still starting; the embedded one makes its own schema."""
    give_up = clock.monotonic() + START_FOR
    while True:
        try:
            if is_embedded(project):
                await store.migrate()
            return await store.open()
        except StoreUnavailableError:
            if clock.monotonic() >= give_up:
                raise
            log("web.store_awaited", level="warning")
            await asyncio.sleep(START_PAUSE)


def _bell(project: Project) -> tuple[Bell, Callable[[], Awaitable[bool]] | None]:
    broker = project.settings.broker
    if not broker.url:
        return LocalBell(), None
    bell = RedisBell(broker.url, broker.namespace)
    return bell, bell.ping
