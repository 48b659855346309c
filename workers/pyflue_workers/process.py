"""The worker process: one event loop for all turns, and Dramatiq's threads to hear wake-ups.

Redis may be absent at the start or go away at any time: the worker looks for due mailboxes by itself every
second, and Dramatiq's consumer starts again when Redis is back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import dramatiq
import dramatiq.worker
import msgspec
import uvloop

from pyflue.bells.local import LocalBell
from pyflue.bells.redis import WAKE_QUEUE
from pyflue.channels.choose import unbuilt_channels
from pyflue.clock import Clock, SystemClock
from pyflue.config import BrokerSettings, Project
from pyflue.errors import StoreUnavailableError
from pyflue.ids import SessionId
from pyflue.observers.logs import configure, log
from pyflue.runtime import Runtime, assemble, drain_time, settle_in
from pyflue_workers.actors import declare_wake
from pyflue_workers.broker import WakeBroker

THREADS: Final = 4  # they only hand over; the turns share one event loop
RESTART_DELAY: Final = 0.5  # seconds before a consumer that lost Redis tries again; Dramatiq's own default is 3
IDLE_MS: Final = 500  # one BLMOVE waits so long, and a stopping thread or consumer notices as late
STOP_MS: Final = 3_000  # for Dramatiq's threads to end
START_FOR: Final = 30.0  # seconds an unreachable store is waited for at the start
START_PAUSE: Final = 0.5  # seconds between those tries
LEAVE_AFTER: Final = 1.0  # seconds for what is still running when all else is closed
NOISE_SECONDS: Final = 60.0  # a consumer without Redis says so this often, not twice a second


class Wakeable(Protocol):
    """The part of ``pyflue.mailbox.worker.Worker`` that hears wake-ups."""

    async def accept(self, session_id: SessionId) -> None: ...


def work(project: Project, *, turns: int | None = None) -> None:
    """Run a worker until SIGTERM or SIGINT, then let it stop without losing anything. Blocks.

    ``turns`` overrides how many run at once. Raises:
        ConfigurationError, SchemaError: it cannot start as things are.
        StoreUnavailableError: the store could not be reached for 30 seconds.
    """
    configure(project.settings.log, sys.stderr, project.secrets.all)
    if turns is not None:
        worker = msgspec.structs.replace(project.settings.worker, turns=turns)
        project = msgspec.structs.replace(project, settings=msgspec.structs.replace(project.settings, worker=worker))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(project))


@asynccontextmanager
async def hear_wake_ups(broker: BrokerSettings, worker: Wakeable, clock: Clock) -> AsyncGenerator[None]:
    """Hand wake-ups from Redis to ``worker`` for the length of the block. Without a broker URL there are none to hear."""
    if not broker.url:
        yield
        return
    dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = RESTART_DELAY  # otherwise read from the environment at import
    _quieten(clock)
    wakes = WakeBroker(broker.url, broker.namespace)
    handover = declare_wake(wakes, worker.accept, asyncio.get_running_loop())
    threads = dramatiq.Worker(wakes, worker_threads=THREADS, worker_timeout=IDLE_MS)
    threads.queue_prefetch = THREADS  # more would be held here while other processes have free slots
    threads.start()
    try:
        yield
    finally:
        handover.close()
        await asyncio.to_thread(threads.stop, STOP_MS)
        wakes.close()


async def _work(project: Project) -> None:
    stopping = asyncio.Event()
    clock = SystemClock()
    runtime = await _start(project, clock)
    _tell_what_is_missing(runtime)
    loop = asyncio.get_running_loop()  # until here a signal ends the process at once: nothing was begun
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await runtime.models.prepare()
        worker = runtime.worker()
        await worker.start()
        settle_in()
        if isinstance(runtime.bell, LocalBell):
            runtime.bell.wake = worker.wake
        try:
            async with hear_wake_ups(project.settings.broker, worker, clock):
                await stopping.wait()
        finally:
            await worker.stop(drain_time(project))
    finally:
        await runtime.close()
        await _leave_what_will_not_end()


async def _leave_what_will_not_end() -> None:
    """End the process at once if a tool refuses to be cancelled: the event loop would wait for it for ever.

    Everything of ours is closed by now, and what the tool does no longer counts: its session is another's.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left and (stubborn := (await asyncio.wait(left, timeout=LEAVE_AFTER))[1]):
        log("worker.tasks_left", level="warning", count=len(stubborn))
        logging.shutdown()
        os._exit(0)


def _tell_what_is_missing(runtime: Runtime) -> None:
    """Say what the settings and the agents' folder promise and this process does not have."""
    settings = runtime.project.settings
    for name, reason in sorted(runtime.registry.broken.items()):
        log("agent.broken", level="error", agent=name, reason=reason)
    for name, reason in unbuilt_channels(settings.channels, runtime.project.secrets).items():
        log("channel.missing", level="warning", channel=name, reason=reason)
    for name, channel in sorted(settings.channels.items()):
        if channel.agent not in runtime.registry.names:
            log("channel.agent_missing", level="warning", channel=name, agent=channel.agent)


async def _start(project: Project, clock: Clock) -> Runtime:
    """Assemble the process, waiting for a store that is still starting."""
    give_up = clock.monotonic() + START_FOR
    while True:
        try:
            return await assemble(project)
        except StoreUnavailableError:
            if clock.monotonic() >= give_up:
                raise
            log("worker.store_awaited", level="warning")
            await asyncio.sleep(START_PAUSE)


class _Rarely(logging.Filter):
    """Lets the same message through once a minute."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock.monotonic()
        if now - self._said.get(record.msg, -NOISE_SECONDS) < NOISE_SECONDS:
            return False
        self._said[record.msg] = now
        return True


def _quieten(clock: Clock) -> None:
    for queue in (WAKE_QUEUE, WAKE_QUEUE + ".DQ"):
        logger = logging.getLogger(f"dramatiq.worker.ConsumerThread({queue})")
        if not any(isinstance(one, _Rarely) for one in logger.filters):
            logger.addFilter(_Rarely(clock))
