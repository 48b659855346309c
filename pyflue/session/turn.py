"""What one attempt at a dispatch works with, and how it may be stopped from outside."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Literal
from weakref import WeakSet

from msgspec import Struct

from pyflue.agents import ResolvedAgent
from pyflue.clock import Clock
from pyflue.config import RetrySettings
from pyflue.dispatches import Dispatch, OutboxDraft
from pyflue.entries import Entry, JournalLine
from pyflue.errors import HandBack
from pyflue.ids import SessionId
from pyflue.messages import ModelAnswer
from pyflue.models.protocol import Model
from pyflue.session.journal import SessionJournal
from pyflue.session.liveness import Liveness
from pyflue.session.resume import of_dispatch
from pyflue.stores.protocol import Steps

StopReason = Literal["abort", "stop", "lost"]
"""``abort``: somebody asked; ``stop``: this process is going away; ``lost``: the lease is another's now."""

working_on: ContextVar[SessionId | None] = ContextVar("pyflue_working_on", default=None)
"""The session whose turn the current task belongs to, so that a tool cannot wait for its own turn."""


class CallScope:
    """The tool call the current task belongs to: what it begins elsewhere is known by the call's own key."""

    def __init__(self, idempotency_key: str) -> None:
        self._key = idempotency_key
        self._uses = Counter[bytes]()

    def key_for(self, text: str) -> str:
        """Return the key of a prompt made in this call; a call that runs again gives the same prompts the same keys."""
        digest = hashlib.blake2b(text.encode(), digest_size=12).digest()
        self._uses[digest] += 1
        return f"{self._key}:{digest.hex()}:{self._uses[digest]}"


calling_from: ContextVar[CallScope | None] = ContextVar("pyflue_calling_from", default=None)


class Completed(Struct, frozen=True):
    """The model gave its final answer. ``entries``: what of it is not in the journal yet."""

    answer: ModelAnswer
    entries: tuple[Entry, ...]
    duration_ms: int = 0


class Failed(Struct, frozen=True):
    """The dispatch cannot succeed. ``code`` is stable, ``message`` is for the operator."""

    code: str
    message: str


class Aborted(Struct, frozen=True):
    """Somebody asked for it to end."""


class Parked(Struct, frozen=True):
    """Try again after ``delay``. ``refund``: this attempt does not count."""

    reason: str
    delay: timedelta
    refund: bool
    message: str = ""


Verdict = Completed | Failed | Aborted | Parked


class AbortFlag:
    """The ``AbortSignal`` tools are given. One of a call of its own is set with its turn's, or alone when its time is up."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._calls: WeakSet[AbortFlag] = WeakSet()

    def of_a_call(self) -> AbortFlag:
        """Make the flag of one tool call of this turn."""
        flag = AbortFlag()
        if self.aborted:
            flag.set()
        self._calls.add(flag)
        return flag

    @property
    def aborted(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()

    def set(self) -> None:
        """Tell everybody who waits."""
        self._event.set()
        for flag in list(self._calls):
            flag.set()


class TurnControl:
    """The handle others hold on an attempt: they ask it to stop and it says why it stopped."""

    def __init__(self) -> None:
        self.signal = AbortFlag()
        self.reason: StopReason | None = None
        self.draining = False
        self._task: asyncio.Task[Verdict] | None = None
        self._calls: set[asyncio.Task[object]] = set()

    def attach(self, task: asyncio.Task[Verdict]) -> None:
        """Name the task to cancel; a stop asked for before takes effect now."""
        self._task = task
        if self.reason is not None:
            task.cancel()

    def watch(self, call: asyncio.Task[object]) -> None:
        """Name the task a tool runs in, which is to end with the attempt."""
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def stop(self, reason: StopReason) -> None:
        """Cancel the attempt; the first reason holds, except that a lost lease outranks the others.

        Tools are cancelled here and now: through the attempt they would hear of it some steps of the loop later, and do
        meanwhile what they were about to do.
        """
        if self.reason is None or reason == "lost":
            self.reason = reason
        self.signal.set()
        for call in self._calls:
            call.cancel()
        if self._task is not None:
            self._task.cancel()

    def boundary(self) -> None:
        """Mark a point between two turns, where a stopping process gives the work back.

        Raises:
            HandBack: this process is draining.
        """
        if self.draining:
            raise HandBack


class Turn(Struct, frozen=True, eq=False):
    """Everything one attempt needs, handed down instead of looked up.

    ``deadline``: monotonic seconds at which the dispatch's wall clock is used up.
    ``draft``: makes outbox rows from a text and a call id, for the ``reply`` tool; None when there is nowhere to reply.
    """

    agent: ResolvedAgent
    model: Model
    model_id: str
    dispatch: Dispatch
    journal: SessionJournal
    steps: Steps
    liveness: Liveness
    control: TurnControl
    clock: Clock
    retry: RetrySettings
    deadline: float
    draft: Callable[[str, str], tuple[OutboxDraft, ...]] | None = None

    @property
    def lines(self) -> list[JournalLine]:
        """Return the lines of this dispatch."""
        return of_dispatch(self.journal.lines, self.dispatch.id)
