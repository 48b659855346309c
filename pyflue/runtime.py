"""Assembly: everything a process needs, built once from its settings and handed down."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary, ref

from pyflue.bells.local import LocalBell
from pyflue.bells.protocol import Bell
from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import Channel
from pyflue.clock import Clock, SystemClock
from pyflue.config import Project, load_project, seconds
from pyflue.dispatches import TERMINAL, Dispatch, SessionAddress
from pyflue.errors import ConfigurationError, StoreUnavailableError
from pyflue.events import StoredEvent
from pyflue.ids import DispatchId, Ids, SessionId
from pyflue.mailbox.admit import Admitter
from pyflue.mailbox.worker import Worker
from pyflue.mailbox.workplace import Workplace
from pyflue.models.resolve import ModelProviders
from pyflue.registry import Registry, discover
from pyflue.session.liveness import Liveness
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import DispatchQuery, Store

EVENT_PAGE: Final = 500
PROMPT_DRAIN: Final = timedelta(seconds=5)  # how long a closing script waits for replies it is sending

COLLECT_AFTER: Final = 20_000  # objects made and not freed; Python's own 700 is meant for scripts

_current: ContextVar[Runtime | None] = ContextVar("pyflue_runtime", default=None)
_defaults: WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = WeakKeyDictionary()


class Runtime:
    """The parts of one process. Build it with ``open_runtime``; it belongs to the event loop it was built on."""

    def __init__(
        self,
        project: Project,
        store: Store,
        bell: Bell,
        registry: Registry,
        channels: Mapping[str, Channel],
        *,
        clock: Clock | None = None,
    ) -> None:
        self.project = project
        self.store = store
        self.bell = bell
        self.registry = registry
        self.channels = channels
        self.clock = clock or SystemClock()
        self.ids = Ids(self.clock)
        self.models = ModelProviders(project.settings.models, project.secrets)
        self.admitter = Admitter(store, bell, self.clock, self.ids, project.settings.queue.limits)
        self._loop = ref(asyncio.get_running_loop())
        self._workers: list[Worker] = []
        self._prompting: Worker | None = None
        self._waiting: dict[SessionId, list[DispatchId]] = {}
        self._starting = asyncio.Lock()

    def worker(self, *, rescuing: bool = True) -> Worker:
        """Make a worker of this process; start and stop it yourself. What its tools prompt goes to this runtime."""
        settings = self.project.settings
        place = Workplace(
            store=self.store,
            bell=self.bell,
            registry=self.registry,
            models=self.models,
            channels=self.channels,
            settings=settings,
            clock=self.clock,
            ids=self.ids,
            env=self.project.env,
            secrets=self.project.secrets,
            worker_id=self.ids.worker(),
            liveness=Liveness(self.clock, settings.worker.lease, settings.worker.fence_margin),
        )
        context = Context()
        context.run(_current.set, self)
        worker = Worker(place, context, rescuing=rescuing)
        self._workers.append(worker)
        return worker

    def check_loop(self) -> None:
        """Refuse to be used on another event loop: locks, connections and heartbeats belong to one.

        Raises:
            ConfigurationError: this is not the loop the runtime was built on.
        """
        if asyncio.get_running_loop() is not self._loop():
            raise ConfigurationError(
                "PyFlue was opened on another event loop.",
                cause="This runs in another thread, or under another asyncio.run().",
                fix="Await it where PyFlue was opened: an `async def` tool, or one asyncio.run() for everything.",
            )

    async def settled(self, dispatch_id: DispatchId, address: SessionAddress) -> Dispatch:
        """Wait for a dispatch's outcome, working its mailbox ourselves whenever nobody else does.

        What is before it in the mailbox is worked too: a conversation goes in order, and it may be that no other
        process ever comes.
        """
        worker = await self._prompting_worker()
        waiting = self._waiting.setdefault(address.id, [])
        waiting.append(dispatch_id)
        try:
            return await self._until_settled(worker, dispatch_id, address)
        finally:
            waiting.remove(dispatch_id)
            if waiting:
                self.bell.announce(waiting[0])  # the mailbox may be free now
            else:
                self._waiting.pop(address.id, None)

    async def _until_settled(self, worker: Worker, dispatch_id: DispatchId, address: SessionAddress) -> Dispatch:
        async with self.bell.listen(dispatch_id) as grown:
            while True:
                try:
                    row = await self.store.views.dispatch(dispatch_id)
                except StoreUnavailableError:
                    row = None  # it was admitted: it is there when the store is back
                if row is not None and row.status in TERMINAL:
                    return row
                if row is None or not await self._lend_a_hand(worker, address, row.position):
                    await anext(grown)

    async def events(self, stream: str, after: int = 0, *, follow: bool = False) -> AsyncIterator[StoredEvent]:
        """Yield a dispatch's events in order, as ``read_events`` does."""
        async for event in read_events(self.store, self.bell, stream, after, follow=follow):
            yield event

    async def abort_session(self, session_id: SessionId) -> int:
        """Ask for every unsettled dispatch of a session to be aborted; return how many there were."""
        count = 0
        for status in ("running", "queued", "waiting"):
            page = await self.store.views.dispatches(DispatchQuery(status=status, session_id=session_id, limit=1_000))
            for row in page:
                await self.abort(row.id)
                count += 1
        return count

    async def abort(self, dispatch_id: DispatchId) -> Dispatch | None:
        """Ask for one dispatch to be aborted and wake somebody to do it; None if there is no such dispatch."""
        row = await self.store.ledger.request_abort(dispatch_id)
        if row is not None and row.status not in TERMINAL:
            self.bell.ring(row.session_id)
            for worker in self._workers:
                worker.abort((dispatch_id,))
        return row

    async def close(self) -> None:
        """Stop what this process does and disconnect; idempotent."""
        if self._prompting is not None:
            await self._prompting.stop(PROMPT_DRAIN)
            self._prompting = None
        for channel in self.channels.values():
            await channel.close()
        await self.models.close()
        await self.bell.close()
        await self.store.close()

    async def _lend_a_hand(self, worker: Worker, address: SessionAddress, position: int) -> bool:
        """Work the mailbox up to ``position`` if nobody holds it; tell whether we did."""
        lease = await worker.claim(address.id, frozenset({address.agent}))
        if lease is None:
            return False
        marker = _current.set(self)
        try:
            await worker.work(lease, until=position)
        finally:
            _current.reset(marker)
        return True

    async def _prompting_worker(self) -> Worker:
        async with self._starting:
            if self._prompting is None:
                worker = self.worker(rescuing=False)
                await worker.start()
                self._prompting = worker
            return self._prompting


async def read_events(
    store: Store, bell: Bell, stream: str, after: int = 0, *, follow: bool = False
) -> AsyncIterator[StoredEvent]:
    """Yield a dispatch's events numbered above ``after``, in order.

    ``follow`` goes on until it is settled and its replies are out; an unknown stream ends at once.

    Raises:
        StoreUnavailableError: the store does not answer; go on later from the last event's number.
    """
    async with bell.listen(stream) as grown:
        while True:
            page = await store.events.read(stream, after, EVENT_PAGE)
            for event in page:
                after = event.seq
                yield event
            if len(page) == EVENT_PAGE:
                continue
            if not follow or await _is_over(store, DispatchId(stream), after):
                return
            await anext(grown)


async def _is_over(store: Store, dispatch_id: DispatchId, after: int) -> bool:
    """Tell whether the stream will not grow beyond ``after``; replies are read first, so that none slips between."""
    for status in ("pending", "sending"):
        if await store.views.outbox(dispatch_id=dispatch_id, status=status, limit=1):
            return False
    row = await store.views.dispatch(dispatch_id)
    return row is None or (row.status in TERMINAL and row.event_seq <= after)


@asynccontextmanager
async def open_runtime(
    project: Project | str | Path = "pyflue.toml", *, bell: Bell | None = None
) -> AsyncGenerator[Runtime]:
    """Open a runtime for the block and make it the one ``init_agent`` uses inside.

    Raises:
        ConfigurationError: the settings cannot be used.
        SchemaError: the database needs `pyflue migrate` (the embedded default migrates itself).
        StoreUnavailableError: the database does not answer.
    """
    runtime = await assemble(project if isinstance(project, Project) else load_project(project), bell=bell)
    marker = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(marker)
        await runtime.close()


async def assemble(project: Project, *, bell: Bell | None = None) -> Runtime:
    """Build and open the parts; the caller closes the runtime."""
    settings = project.settings
    registry = discover(project.root, settings.agents.directories)
    channels = build_channels(settings.channels, project.secrets, timeout=settings.outbox.timeout)
    store = open_store(project.database_url, pool=settings.storage.pool)
    if is_embedded(project):
        await store.migrate()
    await store.open()
    ringing = bell or default_bell(project)
    await ringing.open()
    return Runtime(project, store, ringing, registry, channels)


def is_embedded(project: Project) -> bool:
    """Tell whether the store lives in this machine's files or memory, where no operator runs migrations."""
    return project.database_url.startswith(("sqlite:", "memory:"))


def settle_in() -> None:
    """Tell the garbage collector that what was loaded so far stays, and to look less often at what comes and goes.

    For processes that serve: once, after the start. Modules and settings are then never walked again, and a turn's own
    objects, hardly any of which form cycles, are counted in ten thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 50)


def default_bell(project: Project) -> Bell:
    """Return the bell the settings ask for: Redis when there is a broker, in-process otherwise."""
    broker = project.settings.broker
    if not broker.url:
        return LocalBell(None)
    from pyflue.bells.redis import RedisBell  # the embedded default does without redis

    return RedisBell(broker.url, broker.namespace)


async def current_runtime(config_path: str | Path | None = None) -> Runtime:
    """Return the runtime of the enclosing ``open_runtime`` block, or this loop's default one, opened when first needed.

    The default one stays open until its loop ends. A process that dies leaves nothing behind that others cannot take.

    Raises:
        ConfigurationError: the enclosing block's runtime belongs to another event loop.
    """
    if (runtime := _current.get()) is not None:
        runtime.check_loop()
        return runtime
    loop = asyncio.get_running_loop()
    if loop not in _defaults:
        _defaults[loop] = await assemble(load_project(config_path or "pyflue.toml"))
    return _defaults[loop]


def use_runtime(runtime: Runtime) -> None:
    """Make a runtime the one ``init_agent`` uses in this context and the tasks started from it."""
    _current.set(runtime)


def drain_time(project: Project) -> timedelta:
    """Return how long a stopping process lets turns reach a boundary."""
    return seconds(project.settings.worker.drain)
