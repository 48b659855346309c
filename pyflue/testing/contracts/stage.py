"""What every contract test starts from: a store, a clock that stands still, and a few words to act with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pytest
from msgspec import Raw
from msgspec.structs import replace

from pyflue.dispatches import (
    Admission,
    DedupeKey,
    Dispatch,
    DispatchError,
    DispatchInput,
    DispatchResult,
    Lease,
    OutboxDraft,
    Outcome,
    QueueLimits,
    Receipt,
    SessionAddress,
    WorkerRow,
)
from pyflue.entries import Entry, InputEntry
from pyflue.events import DispatchSettled, DispatchStarted, Event
from pyflue.ids import DispatchId, Ids, SessionId, WorkerId
from pyflue.stores.protocol import Settled, Settlement, Store, TurnWrite
from pyflue.testing.clock import FakeClock

LEASE_TIME: Final = timedelta(seconds=15)
GRACE: Final = timedelta(seconds=3)
BUDGET: Final = timedelta(hours=1)
SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
AGENTS: Final = frozenset({"echo", "other"})
LIMITS: Final = QueueLimits()

OtherStore = Callable[[], Awaitable[Store]]


@dataclass
class Turn:
    """One dispatch being worked: its lease, and the journal's head as its worker knows it."""

    store: Store
    lease: Lease
    dispatch_id: DispatchId
    head: int

    def write(self, *entries: Entry, events: tuple[Event, ...] = (), outbox: tuple[OutboxDraft, ...] = ()) -> TurnWrite:
        return TurnWrite(self.dispatch_id, self.head, entries, events, outbox)

    async def append(
        self, *entries: Entry, events: tuple[Event, ...] = (), outbox: tuple[OutboxDraft, ...] = ()
    ) -> int:
        self.head = await self.store.journal.append(self.lease, self.write(*entries, events=events, outbox=outbox))
        return self.head

    async def settle(self, outcome: Outcome = "completed", *replies: OutboxDraft, keep: bool = False) -> Settled:
        settled = await self.store.ledger.settle(
            self.lease,
            Settlement(
                self.write(events=(DispatchSettled(outcome),), outbox=replies),
                outcome,
                result=DispatchResult("done") if outcome == "completed" else None,
                error=DispatchError("broken", "it broke") if outcome == "failed" else None,
                keep_first_reply=keep,
            ),
        )
        self.head = settled.head
        return settled

    async def park(self, delay: timedelta = MINUTE, *, refund: bool = True) -> None:
        await self.store.ledger.park(self.lease, self.write(), delay, refund=refund)

    async def release(self) -> bool:
        mailbox = await self.store.ledger.mailbox(self.lease)
        return await self.store.ledger.release(self.lease, mailbox.seen)


class Scene:
    """Acts on a store the way fronts and workers do."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.ids = Ids(clock)
        self._keys = 0
        self._drafts = 0

    def address(self, thread: str = "one", agent: str = "echo") -> SessionAddress:
        return SessionAddress(agent, thread)

    def session(self, thread: str = "one", agent: str = "echo") -> SessionId:
        return self.address(thread, agent).id

    def key(self) -> DedupeKey:
        """Return a key never used before in this scene."""
        self._keys += 1
        return DedupeKey("test", f"key-{self._keys}")

    def admission(self, thread: str = "one", *keys: DedupeKey, agent: str = "echo", text: str = "hello") -> Admission:
        return Admission(
            self.ids.dispatch(), self.address(thread, agent), DispatchInput(text), keys=keys or (self.key(),)
        )

    async def admit(self, thread: str = "one", *keys: DedupeKey, agent: str = "echo") -> Receipt:
        [receipt] = await self.store.ledger.admit([self.admission(thread, *keys, agent=agent)], LIMITS)
        assert isinstance(receipt, Receipt)
        return receipt

    async def admit_replay(self, dispatch_id: DispatchId) -> Receipt:
        """Admit a replay of a dispatch of thread ``one``."""
        [receipt] = await self.store.ledger.admit([replace(self.admission(), replay_of=dispatch_id)], LIMITS)
        assert isinstance(receipt, Receipt)
        return receipt

    async def worker(self, *agents: str) -> WorkerId:
        """Register a live worker that knows ``agents`` (all of the scene's when none is named)."""
        now = self.clock.now()
        worker_id = self.ids.worker()
        row = WorkerRow(
            id=worker_id,
            host="host",
            pid=1,
            status="live",
            agents=agents or tuple(sorted(AGENTS)),
            started_at=now,
            heartbeat_at=now,
            expires_at=now,
            liveness_key=self.ids.liveness_key(),
        )
        await self.store.fleet.register(row, LEASE_TIME)
        return worker_id

    async def claim(self, thread: str = "one", worker: WorkerId | None = None) -> Lease | None:
        return await self.store.ledger.claim(self.session(thread), worker or await self.worker(), AGENTS)

    async def lease(self, thread: str = "one", worker: WorkerId | None = None) -> Lease:
        lease = await self.claim(thread, worker)
        assert lease is not None, "the session was expected to be claimable"
        return lease

    async def begin(self, lease: Lease, *entries: Entry) -> Turn:
        """Start an attempt at the head of the lease's mailbox."""
        mailbox = await self.store.ledger.mailbox(lease)
        assert mailbox.head is not None, "something was expected to be unsettled"
        events = (DispatchStarted(mailbox.head.attempts + 1, lease.worker_id),)
        await self.store.ledger.begin(lease, TurnWrite(mailbox.head.id, lease.head, entries, events), BUDGET)
        return Turn(self.store, lease, mailbox.head.id, lease.head + len(entries))

    async def start(self, thread: str = "one", worker: WorkerId | None = None) -> Turn:
        """Admit, claim and begin one dispatch."""
        await self.admit(thread)
        return await self.begin(await self.lease(thread, worker))

    async def take_over(self, turn: Turn) -> Lease:
        """Let the turn's worker die, and give its session to a new one; the clock moves past the lease time."""
        self.clock.advance(LEASE_TIME + SECOND)
        await self.store.fleet.reap(GRACE)
        await self.store.fleet.free(100)
        lease = await self.store.ledger.claim(turn.lease.session_id, await self.worker(), AGENTS)
        assert lease is not None, "the session of a dead worker was expected to be claimable"
        return lease

    def draft(self, body: str = "hi", key: str = "") -> OutboxDraft:
        self._drafts += 1
        return OutboxDraft(
            self.ids.outbox(), "chat", Raw(b'{"room":"r1"}'), body, key or f"reply-{self._drafts}", part=0
        )

    async def dispatch(self, dispatch_id: DispatchId) -> Dispatch:
        dispatch = await self.store.views.dispatch(dispatch_id)
        assert dispatch is not None
        return dispatch

    async def due_in(self, thread: str = "one") -> timedelta | None:
        """Return how far from now the session is due; None when it is not due at all."""
        row = await self.store.views.session(self.session(thread))
        assert row is not None
        return row.due_at - self.clock.now() if row.due_at else None

    async def event_types(self, dispatch_id: DispatchId) -> list[str]:
        return [event.type for event in await self.store.events.read(dispatch_id)]

    async def snapshot(self, turn: Turn) -> tuple[object, ...]:
        """Return everything a write of this turn could change, to compare before and after."""
        return (
            await self.store.views.session(turn.lease.session_id),
            await self.store.views.dispatch(turn.dispatch_id),
            await self.store.journal.load(turn.lease.session_id),
            await self.store.events.read(turn.dispatch_id),
            await self.store.views.outbox(session_id=turn.lease.session_id),
        )


def said(text: str) -> InputEntry:
    """Return a small entry."""
    return InputEntry(text)


class StoreContract:
    """Base of the contracts. A subclass gives three fixtures.

    ``clock``: a ``FakeClock``. ``store``: an opened, empty ``Store`` that takes its time from ``clock``.
    ``other_store``: an async function that returns another opened ``Store`` object over the same data, with the same
    clock; a store that cannot be opened twice returns ``store`` itself. Closing them is the fixtures' business.
    """

    @pytest.fixture
    def scene(self, store: Store, clock: FakeClock) -> Scene:
        return Scene(store, clock)
