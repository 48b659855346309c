"""The whole road in one process: signed deliveries, a store, any number of workers, a model, and fake platforms.

    async with Flow({"support": agent}, model=ScriptedModel("It left today.")) as flow:
        receipt = await flow.receive("standard", "Where is my order?")

        assert (await flow.outcome(receipt)).status == "completed"
        assert await flow.replies("standard") == ["It left today."]

Time stands still unless ``pass_time`` moves it; only the loops of the workers run in real time, a hundred times a
second. A worker can be killed, or stopped in the middle of a line, and another takes over.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import msgspec

from pyflue.agents import CreatedAgent
from pyflue.bells.local import LocalBell
from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import Answer, Channel
from pyflue.channels.signed import SampleMessage, signed_delivery
from pyflue.clock import Clock, SystemClock
from pyflue.config import AgentsSettings, ChannelSettings, Project, Secret, Secrets, Settings, WorkerSettings
from pyflue.dispatches import TERMINAL, DedupeKey, Dispatch, DispatchInput, Receipt, ReplyMode, SessionAddress
from pyflue.entries import Entry, decode_entry
from pyflue.events import StoredEvent
from pyflue.ids import DispatchId, SessionId
from pyflue.mailbox.admit import admission_of
from pyflue.mailbox.worker import Worker
from pyflue.messages import ModelAnswer
from pyflue.models.offline import OfflineModel
from pyflue.models.protocol import Model, ModelRequest
from pyflue.registry import Registry
from pyflue.runtime import Runtime
from pyflue.stores.memory import MemoryStore
from pyflue.stores.protocol import Store
from pyflue.testing.clock import FakeClock
from pyflue.testing.faults import Faults, faulty
from pyflue.testing.platforms import STANDARD_SECRET, FakePlatforms

FAST: Final = WorkerSettings(heartbeat=0.01, rescue=0.01, drain=2.0, judge_pause=0.01)
"""Loops a hundred times a second; leases, graces and margins as in production, on the fake clock."""
PATIENCE: Final = 10.0  # real seconds any wait of the flow may take before the test fails
SECRETS: Final = Secrets(
    slack_signing_secret=Secret("slack-signing-secret"),
    slack_bot_token=Secret("xoxb-flow"),
    github_webhook_secret=Secret("github-webhook-secret"),
    github_token=Secret("ghs_flow"),
    standard_webhook_secret=Secret(STANDARD_SECRET),
)


class FlowWorker:
    """One worker of the flow, with a view of the store of its own that ``faults`` can spoil."""

    def __init__(self, worker: Worker, faults: Faults) -> None:
        self.worker = worker
        self.faults = faults
        self.up = True

    async def kill(self) -> None:
        """End it as ``kill -9`` would: from here on it writes nothing and hands nothing back."""
        self.up = False
        self.faults.freeze()
        await self.worker.abandon()

    async def stop(self, drain: float = 2.0) -> None:
        """Stop it as SIGTERM would; ``drain`` in real seconds."""
        self.up = False
        await self.worker.stop(timedelta(seconds=drain))

    def pause(self) -> None:
        """Stop it in the middle of a line, as SIGSTOP would: nothing of it reaches the store."""
        self.up = False
        self.faults.freeze()

    def resume(self) -> None:
        """Let it go on, as SIGCONT would."""
        self.faults.thaw()
        self.up = True


class _RecordingModel:
    """Any model, with its requests kept."""

    def __init__(self, model: Model, requests: list[ModelRequest]) -> None:
        self._model = model
        self._requests = requests

    async def answer(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelAnswer:
        self._requests.append(request)
        return await self._model.answer(request, on_text)

    async def close(self) -> None:
        await self._model.close()


class Flow:
    """Everything between a signed delivery and its reply. ``async with`` starts it with one worker.

    ``agents``: by name; channels talk to the first. One that names no model gets ``model``, by default the offline echo.
    ``store``: opened and migrated, by default in memory; it should take its time from ``clock``.
    ``channels``: by name, with how they reply; their platforms are faked. ``settings`` for everything else.
    """

    def __init__(
        self,
        agents: Mapping[str, CreatedAgent],
        *,
        model: Model | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
        settings: Settings | None = None,
        channels: Mapping[str, ReplyMode] | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.store = store or MemoryStore(self.clock)
        self.platforms = FakePlatforms()
        self.bell = LocalBell(self._wake)
        self.model_calls: list[ModelRequest] = []
        self.workers: list[FlowWorker] = []
        self.registry = Registry()
        for name, agent in agents.items():
            self.registry.add(name, agent)
        self.runtime: Runtime
        self.settings = settings or Settings(worker=FAST)
        self._model = model or OfflineModel()
        self._wanted: Mapping[str, ReplyMode] = {"standard": "auto"} if channels is None else channels
        self._agent = next(iter(agents), "nobody")
        self._channels: dict[str, Channel] = {}
        self._deliveries = 0
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._wanted:
            await self._opened.enter_async_context(self.platforms)
        given = {name: self._channel_settings(name, reply) for name, reply in self._wanted.items()}
        self._channels = build_channels(given, SECRETS, timeout=5.0)
        model_name = "offline/echo" if isinstance(self._model, OfflineModel) else "flow/model"
        self.settings = msgspec.structs.replace(
            self.settings,
            channels={**given, **self.settings.channels},
            agents=AgentsSettings(model=self.settings.agents.model or model_name),
        )
        self.runtime = self._new_runtime(self.store, self._channels)
        await self.start_worker()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for each in self.workers:
            each.faults.thaw()
            await each.worker.abandon()
        await self.runtime.admitter.close()
        for channel in self._channels.values():
            await channel.close()
        await self._opened.aclose()

    async def start_worker(
        self, *, registry: Registry | None = None, channels: Mapping[str, Channel] | None = None
    ) -> FlowWorker:
        """Add a worker process; ``registry`` and ``channels`` where it shall know others than the flow's."""
        faults = Faults()
        runtime = self._new_runtime(faulty(self.store, faults), self._channels if channels is None else channels)
        runtime.registry = registry or self.registry
        started = FlowWorker(runtime.worker(), faults)
        await started.worker.start()
        self.workers.append(started)
        return started

    @property
    def worker(self) -> FlowWorker:
        """Return the first worker that is up."""
        return next(each for each in self.workers if each.up)

    async def receive(
        self, channel: str, text: str, *, thread: str = "", delivery_id: str = "", sender: str = "ada"
    ) -> Receipt:
        """Take in a signed delivery as the front does: verified, parsed, admitted."""
        self._deliveries += 1
        sample = SampleMessage(text, delivery_id or f"delivery-{self._deliveries}", thread, sender)
        now = SystemClock().now()
        request = signed_delivery(channel, _secret_of(channel), sample, now).as_request()
        events = self._channels[channel].receive(request, now)
        assert not isinstance(events, Answer), f"the channel answered by itself: {events}"
        settings = self.settings.channels[channel]
        admissions = [admission_of(event, channel, settings, self.runtime.ids) for event in events]
        return (await asyncio.gather(*map(self.runtime.admitter.admit, admissions)))[0]

    async def dispatch(
        self, text: str, *, agent: str = "", thread: str = "one", key: str = "", session: str = "default"
    ) -> Receipt:
        """Admit work directly, as an application does."""
        address = SessionAddress(agent or self._agent, thread, session)
        dedupe = DedupeKey("flow", key) if key else None
        return await self.runtime.admitter.dispatch(address, DispatchInput(text), dedupe)

    async def outcome(self, receipt: Receipt | DispatchId) -> Dispatch:
        """Wait until a dispatch is settled and return it."""
        dispatch_id = receipt.dispatch_id if isinstance(receipt, Receipt) else receipt
        await self.until(lambda: self._is_settled(dispatch_id))
        return await self.row(dispatch_id)

    async def row(self, receipt: Receipt | DispatchId) -> Dispatch:
        """Return a dispatch as it stands."""
        dispatch_id = receipt.dispatch_id if isinstance(receipt, Receipt) else receipt
        found = await self.store.views.dispatch(dispatch_id)
        assert found is not None, f"there is no dispatch {dispatch_id}"
        return found

    async def replies(self, channel: str = "standard", count: int = 1) -> list[str]:
        """Return the texts a platform has accepted, oldest first, once there are ``count`` of them."""
        async with asyncio.timeout(PATIENCE):
            posted = await self.platforms.wait_for(count, channel)
        return [message.text for message in posted]

    async def events(self, receipt: Receipt | DispatchId) -> list[StoredEvent]:
        """Return the events of a dispatch so far."""
        dispatch_id = receipt.dispatch_id if isinstance(receipt, Receipt) else receipt
        return await self.store.events.read(dispatch_id)

    async def journal(self, receipt: Receipt | DispatchId) -> list[Entry]:
        """Return every entry of the session a dispatch belongs to."""
        lines = await self.store.journal.load((await self.row(receipt)).session_id)
        return [decode_entry(line.body) for line in lines]

    async def until(self, condition: Callable[[], object | Awaitable[object]]) -> None:
        """Wait until ``condition``, plain or async, gives something true."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = condition()
                if (await found) if inspect.isawaitable(found) else found:
                    return
                await asyncio.sleep(0.002)

    async def until_idle(self) -> None:
        """Wait until nothing is unsettled, no reply waits and no session is held."""
        await self.until(self._is_idle)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps, so that workers that are up prove themselves alive meanwhile."""
        assert isinstance(self.clock, FakeClock), "only a fake clock can be moved"
        step = min(self.settings.worker.lease / 5, self.settings.worker.grace / 3)
        while seconds > 0:
            self.clock.advance(timedelta(seconds=min(step, seconds)))
            seconds -= step
            await self.until(self._all_have_beaten)

    async def take_over(self) -> FlowWorker:
        """Kill the worker, start another, and let the lease run out."""
        await self.worker.kill()
        started = await self.start_worker()
        await self.pass_time(self.settings.worker.lease + 1)
        return started

    def _all_have_beaten(self) -> bool:
        """Whether every worker that is up knows itself proved alive since the clock last moved.

        What the store has on it is not enough: a worker whose answer is still on its way would take it for a late one
        if the clock moved again, and would pause its judging for a time that never passes.
        """
        return all(each.worker.place.liveness.age <= 0 for each in self.workers if each.up)

    async def _is_settled(self, dispatch_id: DispatchId) -> bool:
        return (await self.row(dispatch_id)).status in TERMINAL

    async def _is_idle(self) -> bool:
        totals = await self.store.views.totals()
        waiting = sum(totals.dispatches.get(status, 0) for status in ("queued", "running", "waiting"))
        waiting += sum(totals.outbox.get(status, 0) for status in ("pending", "sending"))
        return waiting == 0 and not any(row.sessions for row in await self.store.views.workers())

    def _wake(self, session_id: SessionId) -> None:
        for each in self.workers:
            if each.up:
                each.worker.wake(session_id)
                return

    def _new_runtime(self, store: Store, channels: Mapping[str, Channel]) -> Runtime:
        project = Project(Path(), self.settings, SECRETS, {})
        runtime = Runtime(project, store, self.bell, self.registry, channels, clock=self.clock)
        recording = _RecordingModel(self._model, self.model_calls)
        runtime.models.register("flow", recording)
        return runtime

    def _channel_settings(self, name: str, reply: ReplyMode) -> ChannelSettings:
        address = {"github": self.platforms.github_url, "slack": self.platforms.slack_url}.get(name, "")
        reply_url = self.platforms.reply_url if name == "standard" else ""
        return ChannelSettings(self._agent, reply=reply, api_url=address, reply_url=reply_url)


def _secret_of(channel: str) -> Secret:
    return {
        "github": SECRETS.github_webhook_secret,
        "slack": SECRETS.slack_signing_secret,
        "standard": SECRETS.standard_webhook_secret,
    }[channel]
