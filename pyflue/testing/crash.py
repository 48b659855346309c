"""Named crash points: places on the road where a process dies with SIGKILL, right before or after a call to a port.

Nothing in the runtime knows of them. ``pyflue.testing.process`` runs the real commands with their store, bell,
model and channels wrapped by what is here. A point is armed by a file in a folder that the processes share; the
first process to pass it removes the file, which only one can, and dies. So a crash happens once, wherever it hits.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal, cast

import msgspec
from msgspec import Struct

from pyflue.bells.local import LocalBell
from pyflue.bells.redis import RedisBell
from pyflue.channels.protocol import Channel
from pyflue.entries import AnswerEntry, decode_entry, kind_of_entry
from pyflue.events import DispatchHandedBack
from pyflue.ids import SessionId
from pyflue.messages import ModelAnswer
from pyflue.models.protocol import Model, ModelRequest
from pyflue.models.resolve import ModelProviders
from pyflue.session.resume import continues
from pyflue.stores.protocol import EntryLine, SessionStore, Store, TurnWrite

When = Literal["before", "during", "after"]
Qualifier = Callable[[tuple[object, ...]], str]
"""Tells calls of one method apart by what they are given: what is added to the name of their place."""

RING_LEAVES: Final = 0.05  # seconds for the ring and the 202 to leave the process
FOUND_SOMETHING: Final = frozenset({"claim", "claim_due", "reap", "free"})  # an empty answer of these is no passage
PORTS: Final = ("ledger", "journal", "outbox", "steps", "fleet")


class CrashPoint(Struct, frozen=True):
    """One place. ``step``: the row of the road it belongs to; ``call``: the port call it stands beside.

    ``died``: what was true at that moment, in words for the durability page.
    """

    name: str
    step: int
    when: When
    call: str
    died: str


POINTS: Final = (
    CrashPoint("before_admission", 3, "before", "ledger.admit", "the delivery was verified, nothing was committed"),
    CrashPoint("after_admission", 3, "after", "ledger.admit", "it was committed, the 202 was not sent"),
    CrashPoint("before_ring", 4, "before", "bell.ring", "the 202 was sent, the wake-up was not"),
    CrashPoint("after_ring", 4, "after", "bell.ring", "the wake-up was sent"),
    CrashPoint("before_claim", 5, "before", "ledger.claim", "a worker was woken, and had no lease yet"),
    CrashPoint("after_claim", 6, "after", "ledger.claim", "the lease was taken, nothing was read"),
    CrashPoint("after_rescue_claim", 10, "after", "ledger.claim_due", "the rescue had taken a due mailbox"),
    CrashPoint("before_begin", 7, "before", "ledger.begin", "the input was about to be written"),
    CrashPoint("after_begin", 7, "after", "ledger.begin", "the input was written and the attempt counted"),
    CrashPoint("before_model", 7, "before", "model.answer", "the model was about to be called"),
    CrashPoint("mid_stream", 7, "during", "model.answer", "half of the model's answer had arrived"),
    CrashPoint("after_model", 7, "after", "model.answer", "the answer was complete, not recorded"),
    CrashPoint("after_answer", 7, "after", "journal.append.answer", "the answer was recorded, no tool had started"),
    CrashPoint("before_tool_started", 7, "before", "journal.append.tool_started", "a tool's start was to be recorded"),
    CrashPoint(
        "after_tool_started", 7, "after", "journal.append.tool_started", "its start was recorded, it did not run"
    ),
    CrashPoint("before_effect", 7, "before", "tool.effect", "the tool ran, its effect had not happened"),
    CrashPoint("after_effect", 7, "after", "tool.effect", "its effect had happened, it had not returned"),
    CrashPoint("before_tool_result", 7, "before", "journal.append.tool_result", "it had returned, its result was lost"),
    CrashPoint(
        "after_tool_result", 7, "after", "journal.append.tool_result", "a result was recorded, perhaps one of two"
    ),
    CrashPoint("before_step", 7, "before", "steps.put", "a durable step of the tool was done, not recorded"),
    CrashPoint("after_step", 7, "after", "steps.put", "a durable step of the tool was recorded, the tool went on"),
    CrashPoint(
        "before_reply", 7, "before", "journal.append.reply", "the `reply` tool was called, its reply was not queued"
    ),
    CrashPoint("after_reply", 7, "after", "journal.append.reply", "the reply of the `reply` tool was queued"),
    CrashPoint(
        "before_kept_input", 7, "before", "kept.append.input", "the agent's own store was about to take the input"
    ),
    CrashPoint("after_kept_input", 7, "after", "kept.append.input", "the agent's own store had the input"),
    CrashPoint(
        "before_kept_answer",
        7,
        "before",
        "kept.append.answer",
        "an answer's event was recorded, the agent's own store did not have it",
    ),
    CrashPoint(
        "after_kept_answer",
        7,
        "after",
        "kept.append.answer",
        "the agent's own store had the answer, no tool had started",
    ),
    CrashPoint(
        "before_kept_started",
        7,
        "before",
        "kept.append.tool_started",
        "a start's event was recorded, the agent's own store did not have it",
    ),
    CrashPoint(
        "after_kept_started",
        7,
        "after",
        "kept.append.tool_started",
        "the agent's own store had the start, the tool did not run",
    ),
    CrashPoint(
        "before_kept_result",
        7,
        "before",
        "kept.append.tool_result",
        "a result's event was recorded, the agent's own store did not have it",
    ),
    CrashPoint(
        "after_kept_result",
        7,
        "after",
        "kept.append.tool_result",
        "the agent's own store had a result, perhaps one of two",
    ),
    CrashPoint(
        "before_kept_final",
        8,
        "before",
        "kept.append.final",
        "the final answer was there, the agent's own store did not have it",
    ),
    CrashPoint(
        "after_kept_final",
        8,
        "after",
        "kept.append.final",
        "the agent's own store had the final answer, nothing was settled",
    ),
    CrashPoint("before_settle", 8, "before", "ledger.settle", "the final answer was there, nothing was settled"),
    CrashPoint("after_settle", 8, "after", "ledger.settle", "it was settled, the reply was in the outbox"),
    CrashPoint("before_release", 8, "before", "ledger.release", "the mailbox was worked, the lease was still held"),
    CrashPoint("after_release", 8, "after", "ledger.release", "the lease was given back"),
    CrashPoint("before_send", 9, "before", "channel.send", "the reply was marked as being sent"),
    CrashPoint("after_send", 9, "after", "channel.send", "the platform had the reply, the outbox did not say so"),
    CrashPoint("after_sent", 9, "after", "outbox.sent", "the reply was marked sent"),
    CrashPoint(
        "before_delay", 9, "before", "outbox.retry", "the platform had refused a reply, the outbox did not say so"
    ),
    CrashPoint("after_delay", 9, "after", "outbox.retry", "a reply the platform refused was put back for later"),
    CrashPoint("after_take", 10, "after", "outbox.claim_due", "the rescue had taken an unsent reply"),
    CrashPoint("before_park", 7, "before", "ledger.park", "the model was overloaded, the dispatch was not parked"),
    CrashPoint("after_park", 7, "after", "ledger.park", "the model was overloaded and the dispatch was parked"),
    CrashPoint("after_reap", 10, "after", "fleet.reap", "a worker was declared dead, its sessions were not free"),
    CrashPoint("after_free", 10, "after", "fleet.free", "a dead worker's sessions were free, nobody had them"),
    CrashPoint("after_drain", 7, "after", "fleet.drain", "SIGTERM: it had stopped claiming, turns were under way"),
    CrashPoint("before_hand_back", 7, "before", "ledger.park.handed_back", "SIGTERM: a dispatch was to be handed back"),
    CrashPoint("after_hand_back", 7, "after", "ledger.park.handed_back", "SIGTERM: it was handed back, still leased"),
    CrashPoint("before_retire", 7, "before", "fleet.retire", "SIGTERM: everything was given back, not signed off"),
)
"""Every point, in the order of the road. Docs and tests are made from this list."""

BY_NAME: Final = {point.name: point for point in POINTS}
_BY_CALL: Final = {(point.when, point.call): point.name for point in POINTS}


class Crashes:
    """The points armed in one folder. Any number of processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def arm(self, point: str, nth: int = 1) -> None:
        """Make the ``nth`` passage of a point, counted over all processes, the last thing its process does.

        Raises:
            KeyError: there is no such point.
        """
        self._file(BY_NAME[point].name, nth).touch()

    def disarm(self) -> None:
        """Forget every point still armed."""
        for file in self._folder.iterdir():
            file.unlink(missing_ok=True)

    def armed(self) -> list[str]:
        """Return the points nobody has crashed at yet."""
        return sorted(file.name.partition("@")[0] for file in self._folder.iterdir())

    def reach(self, when: When, call: str) -> None:
        """Pass a place; if it is armed, die here."""
        if self.take(when, call):
            die()

    def take(self, when: When, call: str) -> bool:
        """Tell whether the point of this place is armed and this is its passage; nobody else is told so."""
        name = _BY_CALL.get((when, call))
        if name is None:
            return False
        for found in os.listdir(self._folder):
            point, _, nth = found.partition("@")
            if point == name:
                return self._count_down(name, int(nth))
        return False

    def _count_down(self, name: str, nth: int) -> bool:
        try:
            if nth > 1:
                self._file(name, nth).rename(self._file(name, nth - 1))
                return False
            self._file(name, nth).unlink()
        except FileNotFoundError:  # another process was quicker
            return False
        return True

    def _file(self, name: str, nth: int) -> Path:
        return self._folder / f"{name}@{nth}"


def die() -> None:
    """End this process as ``kill -9`` would: no handler, no ``finally``, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def crashing_store(store: Store, crashes: Crashes) -> Store:
    """Wrap a store, so that its calls are crash points."""
    return cast(Store, _Ports(store, crashes))


def crashing_channel(channel: Channel, crashes: Crashes) -> Channel:
    """Wrap a channel, so that sending is a crash point."""
    return cast(Channel, _Watched(channel, "channel", crashes))


def crashing_conversations(kept: SessionStore, crashes: Crashes) -> SessionStore:
    """Wrap the conversation store an agent brings (``persist``), so that its calls are crash points."""
    return cast(SessionStore, _Watched(kept, "kept", crashes, _kind_kept))


class _Ports:
    """A store whose ports are watched."""

    def __init__(self, store: Store, crashes: Crashes) -> None:
        self._store = store
        self._watched = {name: _Watched(getattr(store, name), name, crashes) for name in PORTS}

    def __getattr__(self, name: str) -> object:
        return self._watched.get(name) or getattr(self._store, name)


class _Watched:
    """Anything, with a crash point before and after each of its async calls."""

    def __init__(self, target: object, port: str, crashes: Crashes, about: Qualifier | None = None) -> None:
        self._target = target
        self._port = port
        self._crashes = crashes
        self._about = about or _kind_written

    def __getattr__(self, name: str) -> object:
        found = getattr(self._target, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return partial(self._call, name, found)

    async def _call(self, name: str, call: Callable[..., Awaitable[object]], *args: object, **named: object) -> object:
        place = f"{self._port}.{name}{self._about(args)}"
        self._crashes.reach("before", place)
        result = await call(*args, **named)
        if result or name not in FOUND_SOMETHING:
            self._crashes.reach("after", place)
        return result


def _kind_written(args: tuple[object, ...]) -> str:
    """Tell apart what a journal line or a parking is about."""
    write = next((given for given in args if isinstance(given, TurnWrite)), None)
    if write is None:
        return ""
    if any(isinstance(event, DispatchHandedBack) for event in write.events):
        return ".handed_back"
    if write.outbox:
        return ".reply"
    # ``begin`` writes the input, and is a place of its own
    kinds = [kind for entry in write.entries if (kind := kind_of_entry(entry)) != "input"]
    return f".{kinds[-1]}" if kinds else ""


def _kind_kept(args: tuple[object, ...]) -> str:
    """Tell apart what an agent's own store is given; the answer that ends a dispatch is a place of its own."""
    bodies = [body for given in args if isinstance(given, list) for body in cast(list[bytes], given)]
    if not bodies:
        return ""
    entry = decode_entry(bytes(msgspec.json.decode(bodies[-1], type=EntryLine).entry))
    is_final = isinstance(entry, AnswerEntry) and not continues(entry.as_answer())
    return ".final" if is_final else f".{kind_of_entry(entry)}"


class CrashingModels(ModelProviders):
    """The providers of a process, with crash points around and within each call."""

    crashes: Crashes

    def resolve(self, name: str) -> tuple[Model, str]:
        model, model_id = super().resolve(name)
        return _WatchedModel(model, self.crashes), model_id


class _WatchedModel:
    def __init__(self, model: Model, crashes: Crashes) -> None:
        self._model = model
        self._crashes = crashes

    async def answer(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelAnswer:
        def streamed(text: str) -> None:
            self._crashes.reach("during", "model.answer")
            if on_text is not None:
                on_text(text)

        self._crashes.reach("before", "model.answer")
        answer = await self._model.answer(request, streamed)
        self._crashes.reach("after", "model.answer")
        return answer

    async def close(self) -> None:
        await self._model.close()


class CrashingLocalBell(LocalBell):
    """The embedded bell with crash points around its ring."""

    crashes: Crashes

    def ring(self, session_id: SessionId) -> None:
        _ring(self.crashes, partial(super().ring, session_id))


class CrashingRedisBell(RedisBell):
    """The bell on Redis with crash points around its ring."""

    crashes: Crashes

    def ring(self, session_id: SessionId) -> None:
        _ring(self.crashes, partial(super().ring, session_id))


def _ring(crashes: Crashes, ring: Callable[[], None]) -> None:
    """Ring, or lose the ring; a ring is detached, so the process dies a moment later, when the 202 has left too."""
    lost = crashes.take("before", "bell.ring")
    if not lost:
        ring()
    if lost or crashes.take("after", "bell.ring"):
        asyncio.get_running_loop().call_later(RING_LEAVES, die)
