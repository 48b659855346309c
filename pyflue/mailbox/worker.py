"""A worker process: slots for turns, a heartbeat, the rescue loop, and stopping without losing anything.

It knows no broker. The Dramatiq actor calls ``accept`` and the embedded bell calls ``wake``; losing either costs
latency only, because ``rescue`` looks for due mailboxes by itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextvars import Context
from datetime import timedelta
from typing import Final

from pyflue.dispatches import Lease, OutboxItem, WorkerRow
from pyflue.errors import StoreUnavailableError
from pyflue.ids import DispatchId, SessionId, WorkerId
from pyflue.mailbox.deliver import deliver
from pyflue.mailbox.drain import drain
from pyflue.mailbox.rescue import judge_the_dead, settle_unclaimable, take_due, take_unsent
from pyflue.mailbox.slots import Slots
from pyflue.mailbox.workplace import Workplace
from pyflue.observers.logs import log
from pyflue.session.liveness import RETRY_PAUSE

DELIVERIES: Final = 100  # replies being sent at once by one process
SLOW_ROUNDS: Final = 10  # agents nobody has, and leases we know nothing of, are looked for once in so many rounds
WAKES_PER_SLOT: Final = 10  # wake-ups remembered while every slot is taken; more are left to the rescue loop


class Worker:
    """One process that works mailboxes. ``rescuing`` false: it judges the dead,
    but works only what it is told to (a script's own prompt).

    ``context``: the context variables of whatever it starts, rather than those of whoever woke it."""

    def __init__(self, place: Workplace, context: Context, *, rescuing: bool = True) -> None:
        self.place = place
        self._context = context
        self._settings = place.settings.worker
        self._rescuing = rescuing
        self._slots = Slots(self._settings.turns)
        self._leased: dict[SessionId, int] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._draining: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._wakes: dict[SessionId, None] = {}
        self._judge_from = 0.0
        self._rounds = 0
        self._fence: asyncio.TimerHandle | None = None
        place.deliver = self.send

    @property
    def id(self) -> WorkerId:
        """Return this process's id; it changes when the process had to be taken for dead."""
        return self.place.worker_id

    async def start(self) -> None:
        """Register and begin: heartbeats at once, rescue after its first interval."""
        await self._register()
        self._loops = [
            asyncio.create_task(self._heartbeats(), name="pyflue-heartbeat", context=self._context.copy()),
            asyncio.create_task(self._rescue(), name="pyflue-rescue", context=self._context.copy()),
        ]
        log("worker.started", worker_id=self.id, turns=self._settings.turns)

    async def accept(self, session_id: SessionId) -> None:
        """Wait for a free slot, then start working the mailbox; return as soon as it has started."""
        if self.place.draining:
            return
        await self._slots.wait()
        self._start(self._claim_and_drain(session_id))

    def wake(self, session_id: SessionId) -> None:
        """Look at a mailbox when a slot is free; never waits. Too many at once are left to the rescue loop."""
        if self.place.draining:
            return
        if self._slots.take():
            self._start(self._claim_and_drain(session_id))
        elif len(self._wakes) < WAKES_PER_SLOT * self._settings.turns:
            self._wakes[session_id] = None

    async def claim(self, session_id: SessionId, agents: frozenset[str]) -> Lease | None:
        """Take a mailbox for this process to ``work``; None if it cannot be had now."""
        place = self.place
        try:
            async with place.gate.taking():
                lease = await place.store.ledger.claim(session_id, place.worker_id, agents)
                if lease is not None:
                    self._leased[session_id] = lease.token
        except (StoreUnavailableError, asyncio.CancelledError) as error:
            place.doubtful = True  # it may have been taken for us without our learning of it
            if isinstance(error, asyncio.CancelledError):
                raise
            return None
        return lease

    async def work(self, lease: Lease, until: int | None = None) -> None:
        """Work a mailbox in the caller's task, until it is empty or position ``until`` is settled."""
        self._leased[lease.session_id] = lease.token
        try:
            await drain(self.place, lease, until)
        except asyncio.CancelledError:
            self.place.doubtful = True  # nobody works the lease from now on
            raise
        finally:
            if self._leased.get(lease.session_id) == lease.token:  # else it was released and claimed again meanwhile
                del self._leased[lease.session_id]

    def send(self, item: OutboxItem) -> None:
        """Start sending a reply this process has taken."""
        self.place.sending.add(item.id)
        self._keep(self._sending, deliver(self.place, item))

    def abort(self, dispatch_ids: tuple[DispatchId, ...]) -> None:
        """Stop attempts somebody asked to abort, as far as this process runs them."""
        for dispatch_id in dispatch_ids:
            if control := self.place.running.get(dispatch_id):
                control.stop("abort")

    async def stop(self, drain_time: timedelta) -> None:
        """Stop claiming, let turns reach a boundary within ``drain_time``, cancel the rest, hand every lease back."""
        self.place.draining = True
        self._wakes.clear()
        for control in self.place.running.values():
            control.draining = True
        await self._quietly(self.place.store.fleet.drain(self.id))
        await self._finish(drain_time.total_seconds())
        for control in self.place.running.values():
            control.stop("stop")
        await self._finish(self._settings.grace)
        await self._cancel([*self._loops, *self._draining, *self._sending])
        if self._fence is not None:
            self._fence.cancel()
        await self._quietly(self.place.store.fleet.retire(self.id))
        log("worker.stopped", worker_id=self.id)

    async def abandon(self) -> None:
        """Drop everything at once, as a killed process would: nothing is handed back. For tests of what others then do."""
        if self._fence is not None:
            self._fence.cancel()
        tasks = {*self._loops, *self._draining, *self._sending}
        while tasks := {task for task in tasks if not task.done()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.01)

    async def _finish(self, seconds: float) -> None:
        """Let turns and replies end, those included that begin meanwhile."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while (pending := {*self._draining, *self._sending}) and (left := end - clock()) > 0:
            await asyncio.wait(pending, timeout=left)

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        """Cancel tasks and wait for them, but not for ever: a tool may refuse to be cancelled."""
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._settings.grace)

    async def _quietly(self, coroutine: Coroutine[None, None, None]) -> None:
        """Do something that helps others sooner, but that they can do without."""
        try:
            await coroutine
        except StoreUnavailableError:
            log("worker.store_unavailable", level="warning", worker_id=self.id)

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run in a slot, which is given back whatever happens: a task cancelled before its first step runs no line."""
        task = self._keep(self._draining, self._safely(coroutine))
        task.add_done_callback(lambda _: self._ended(coroutine))

    async def _safely(self, coroutine: Coroutine[None, None, None]) -> None:
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001 - the actor: nobody awaits this task
            self.place.doubtful = True
            _complain("mailbox.crashed", error)

    def _ended(self, coroutine: Coroutine[None, None, None]) -> None:
        coroutine.close()
        self._slots.give_back()
        self._next_wake()

    def _next_wake(self) -> None:
        if self._wakes and not self.place.draining:
            session_id = next(iter(self._wakes))
            del self._wakes[session_id]
            self.wake(session_id)

    def _keep(self, tasks: set[asyncio.Task[None]], coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run in the background, holding a reference until it ends."""
        task = asyncio.create_task(coroutine, context=self._context.copy())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def _claim_and_drain(self, session_id: SessionId) -> None:
        lease = await self.claim(session_id, self.place.registry.names)
        if lease is not None:
            await self.work(lease)

    async def _register(self) -> None:
        place = self.place
        now = place.clock.now()
        asked_at = place.clock.monotonic()
        row = WorkerRow(
            id=place.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            status="live",
            agents=tuple(sorted(place.registry.names)),
            started_at=now,
            heartbeat_at=now,
            expires_at=now + timedelta(seconds=self._settings.lease),
            liveness_key=place.ids.liveness_key(),
        )
        await place.store.fleet.register(row, timedelta(seconds=self._settings.lease))
        self._proved(asked_at)

    def _proved(self, asked_at: float) -> None:
        """Note that the store knows us alive, and set the time at which the fence closes if it is not told again."""
        if self.place.liveness.age > (self._settings.heartbeat + self._settings.grace) / 2:
            self._pause_judging()  # it answered late, and may have answered others later still
        self.place.liveness.proved(asked_at)
        self._open_fence()

    def _pause_judging(self) -> None:
        self._judge_from = self.place.clock.monotonic() + self._settings.judge_pause

    def _open_fence(self) -> None:
        if self._fence is not None:
            self._fence.cancel()
        self._fence = asyncio.get_running_loop().call_later(self.place.liveness.left, self._close_fence)

    def _close_fence(self) -> None:
        """Stop everything that acts under our leases.

        A timer does it, because after a pause (SIGSTOP, a frozen VM) timers run before the tasks that were waiting take
        another step: a reply that was about to leave does not.
        """
        if self.place.liveness.alive:
            self._open_fence()
            return
        for control in list(self.place.running.values()):
            control.stop("lost")
        for task in self._sending:
            task.cancel()

    async def _heartbeats(self) -> None:
        missed = False
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            try:
                if not self.place.liveness.alive:
                    await self._come_back()
                await self._beat()
            except Exception as error:  # noqa: BLE001 - the actor: without heartbeats this process would be dead
                missed = True
                _complain("worker.heartbeat_failed", error)
            else:
                if missed:
                    self._pause_judging()
                missed = False

    async def _beat(self) -> None:
        place = self.place
        asked_at = place.clock.monotonic()
        async with asyncio.timeout(place.liveness.left):
            heartbeat = await place.store.fleet.heartbeat(place.worker_id, timedelta(seconds=self._settings.lease))
        if heartbeat.alive:
            self._proved(asked_at)
            self.abort(heartbeat.aborts)
        else:
            place.liveness.declare_dead()
            await self._come_back()

    async def _come_back(self) -> None:
        """After having to be taken for dead: drop everything, then register as a new worker.

        The old id is retired, so that whatever it still holds is free for anybody.
        """
        place = self.place
        log("worker.fenced", level="warning", worker_id=self.id)
        for control in list(place.running.values()):
            control.stop("lost")
        await self._cancel([*self._draining, *self._sending])
        self._leased.clear()  # what was held under the old id is anybody's; a task cancelled early forgot nothing itself
        place.sending.clear()
        while True:
            try:
                await place.store.fleet.retire(place.worker_id)
                place.worker_id = place.ids.worker()
                await self._register()
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_PAUSE)
                continue
            self._pause_judging()
            return

    async def _rescue(self) -> None:
        while True:
            await asyncio.sleep(self._settings.rescue)
            try:
                await self._rescue_once()
            except Exception as error:  # noqa: BLE001 - the actor: nothing may end the loop that finds lost work
                self.place.doubtful = True
                self._pause_judging()
                _complain("worker.rescue_failed", error)

    async def _rescue_once(self) -> None:
        """Judge, free, take. Each part is harmless to repeat and to run on every host at once."""
        place = self.place
        if not place.liveness.alive or place.draining:
            return
        # While our own heartbeat is fresh: after an outage of the store everybody's is old, and nobody is dead.
        fresh_for = self._settings.grace - place.liveness.age
        if fresh_for > 0 and place.clock.monotonic() >= self._judge_from:
            await judge_the_dead(place, fresh_for)
        self._rounds += 1
        slow = self._rounds % SLOW_ROUNDS == 0
        if place.doubtful or slow:
            await self._disown()
        if not self._rescuing:
            return
        for lease in await take_due(place, self._slots.free):
            self._slots.overdraw()  # a wake-up may have used the slot meanwhile; a lease nobody works is worse
            self._leased[lease.session_id] = lease.token
            self._start(self.work(lease))
        for item in await take_unsent(place, DELIVERIES - len(self._sending)):
            self.send(item)
        if slow:
            await settle_unclaimable(place)

    async def _disown(self) -> None:
        """Give up what the store says is ours and we know nothing of: a claim whose answer was lost."""
        place = self.place
        place.doubtful = True  # until it is done
        try:
            async with place.gate.alone():
                freed = await place.store.fleet.disown(self.id, tuple(self._leased), tuple(place.sending))
                place.doubtful = False
        except TimeoutError:
            return  # a claim hangs: next time
        for session_id in freed:
            log("session.disowned", level="warning", session_id=session_id, worker_id=self.id)


def _complain(event: str, error: Exception) -> None:
    """Log what went wrong in a loop: a store that is away in one line, a bug of ours with its trace."""
    if isinstance(error, StoreUnavailableError | TimeoutError):
        log(event, level="warning", reason="store_unavailable")
    else:
        log(event, level="error", error=type(error).__name__, exc_info=error)
