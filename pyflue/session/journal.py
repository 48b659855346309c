"""One session's journal as its lease holder sees it: lines in memory, every write fenced.

A write whose commit is unknown (the connection broke, the database restarted) is never repeated blindly: the
committed head is read back first. The head moves only under our token, so it tells whether the write landed; of a write
without entries the dispatch's row does.
A write that has begun is seen to its end even when its caller is cancelled, so that what is in memory and what is
stored never part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from pyflue.dispatches import Dispatch, Lease, OutboxDraft
from pyflue.entries import AdvisoryEntry, Entry, InputEntry, JournalLine, decode_entry, encode_entry
from pyflue.errors import DamagedEntryError, LeaseLost, StoreError, StoreUnavailableError
from pyflue.events import EntryQuarantined, Event
from pyflue.ids import DispatchId
from pyflue.observers.logs import log
from pyflue.session.liveness import RETRY_PAUSE, Liveness, patiently
from pyflue.stores.protocol import (
    EntryLine,
    HeadMoved,
    SessionStore,
    Settled,
    Settlement,
    Store,
    StoredLine,
    TurnWrite,
)

T = TypeVar("T")


class SessionJournal:
    """The lines of a leased session. ``kept`` is the agent's own conversation store, if it brings one."""

    def __init__(self, store: Store, lease: Lease, liveness: Liveness) -> None:
        self.lease = lease
        self.lines: list[JournalLine] = []
        self.damaged: list[int] = []
        self.appended = 0
        """How many entries were appended through this object, wherever they are kept; inputs are not counted."""
        self._store = store
        self._liveness = liveness
        self._head = lease.head
        self._kept: SessionStore | None = None
        self._kept_head = 0
        self._writing = asyncio.Lock()
        self._begun: DispatchId | None = None
        self._counted = False

    @property
    def head(self) -> int:
        """The number of the last line, as the readers of this session count."""
        return self._kept_head if self._kept is not None else self._head

    async def load(self) -> None:
        """Read the lines from the last summary on.

        Raises:
            UnknownEntryKindError: a newer release wrote to this session.
        """
        if self._head == 0:
            return
        self._take(await self._store.journal.load(self.lease.session_id, max(self.lease.summary_seq - 1, 0)))

    async def keep_in(self, kept: SessionStore) -> None:
        """Move to the agent's own conversation store: its lines replace those of the main database.

        A dispatch that ended while nobody knew of that store has its ending in the main database alone; it is added.

        Raises:
            UnknownEntryKindError: a newer release wrote to this conversation.
            LeaseLost: another writer appended to it.
        """
        rows = await kept.load(self.lease.session_id)
        lines = [line for seq, body in rows if (line := _kept_line(seq, body)) is not None]
        if len(lines) < len(rows):
            log("journal.damaged", level="error", session_id=self.lease.session_id, lines=len(rows) - len(lines))
        unheard = _unheard_ending(self.lines, lines) if self._kept is None else ()
        self._kept, self._kept_head, self.lines = kept, rows[-1][0] if rows else 0, lines
        if unheard:
            await _to_its_end(self._keep(lines[-1].dispatch_id, unheard))

    async def begin(self, dispatch: Dispatch, entries: tuple[Entry, ...], event: Event, budget: timedelta) -> Dispatch:
        """Start an attempt, writing ``entries`` (the input, the first time) with it."""
        return await _to_its_end(self._begin(dispatch, entries, event, budget))

    async def _begin(self, dispatch: Dispatch, entries: tuple[Entry, ...], event: Event, budget: timedelta) -> Dispatch:
        quarantined = tuple(EntryQuarantined(seq) for seq in self.damaged)
        write = self._write(dispatch.id, entries, (event, *quarantined), progress=False)
        begun = await self._fenced(
            write,
            lambda: self._store.ledger.begin(self.lease, write, budget),
            lambda row: row.attempts != dispatch.attempts,
        )
        self._begun, self._counted = dispatch.id, False
        self.damaged.clear()
        self._head += len(entries)
        self._remember(dispatch.id, entries, self._head)
        if begun is None:
            begun = await patiently(self._liveness, lambda: self._store.views.dispatch(dispatch.id))
        return begun or dispatch

    async def append(
        self,
        dispatch_id: DispatchId,
        entries: tuple[Entry, ...],
        events: tuple[Event, ...] = (),
        outbox: tuple[OutboxDraft, ...] = (),
    ) -> None:
        """Add entries with the events and replies that belong to them.

        Raises:
            LeaseLost: somebody else has the session; nothing was written.
        """
        await _to_its_end(self._append(dispatch_id, entries, events, outbox))

    async def _append(
        self,
        dispatch_id: DispatchId,
        entries: tuple[Entry, ...],
        events: tuple[Event, ...],
        outbox: tuple[OutboxDraft, ...],
    ) -> None:
        async with self._writing:
            stored = entries if self._kept is None else ()
            write = self._write(dispatch_id, stored, events, outbox)
            await self._fenced(write, lambda: self._store.journal.append(self.lease, write))
            if self._kept is None:
                self._head += len(entries)
                self._remember(dispatch_id, entries, self._head)
            else:
                await self._keep(dispatch_id, entries)
            self.appended += _news(entries)
            if self._kept is not None and _news(entries) and not self._counted:
                await self._count(dispatch_id, _news(entries))

    async def _count(self, dispatch_id: DispatchId, kept_elsewhere: int) -> None:
        """Start the count of attempts again, once in an attempt and only when the agent's own store has what is new."""
        write = msgspec.structs.replace(self._write(dispatch_id, (), ()), kept_elsewhere=kept_elsewhere)
        await self._fenced(write, lambda: self._store.journal.append(self.lease, write))
        self._counted = True

    async def settle(self, settlement: Settlement) -> Settled:
        """End the dispatch with its last entries in one transaction."""
        return await _to_its_end(self._settle(settlement))

    async def _settle(self, settlement: Settlement) -> Settled:
        dispatch_id, entries = settlement.write.dispatch_id, settlement.write.entries
        async with self._writing:
            if self._kept is not None:
                await self._keep(dispatch_id, entries)
            stored = entries if self._kept is None else ()
            write = msgspec.structs.replace(settlement.write, entries=stored, head=self._head)
            settled = await self._settle_surely(msgspec.structs.replace(settlement, write=write))
            self._head = settled.head
            if self._kept is None:
                self._remember(dispatch_id, entries, self._head)
            return settled

    async def _settle_surely(self, settlement: Settlement) -> Settled:
        """Settle once, however often the store goes away: only we could have settled it under our token."""
        write, unknown = settlement.write, False
        while True:
            try:
                return await self._store.ledger.settle(self.lease, settlement)
            except StoreUnavailableError:
                unknown = True
                await self._answering()
                if not await self._is_settled(write.dispatch_id):
                    continue
            except (StoreError, LeaseLost):
                if not unknown or not await self._is_settled(write.dispatch_id):
                    raise
            return Settled(write.head + len(write.entries), released=False)

    async def _is_settled(self, dispatch_id: DispatchId) -> bool:
        row = await patiently(self._liveness, lambda: self._store.views.dispatch(dispatch_id))
        return row is not None and row.settled_at is not None

    def write_of(
        self,
        dispatch_id: DispatchId,
        entries: tuple[Entry, ...],
        events: tuple[Event, ...],
        outbox: tuple[OutboxDraft, ...] = (),
    ) -> TurnWrite:
        """Make the write part of a settlement; its head is set again when it is done."""
        return self._write(dispatch_id, entries, events, outbox)

    async def park(self, dispatch_id: DispatchId, event: Event, delay: timedelta, *, refund: bool) -> None:
        """Put the dispatch back with a time before which it is not worked."""
        write, was_running = self._write(dispatch_id, (), (event,)), self._begun == dispatch_id
        await _to_its_end(
            self._fenced(
                write,
                lambda: self._store.ledger.park(self.lease, write, delay, refund=refund),
                lambda row: was_running and row.status == "queued",
            )
        )

    def _write(
        self,
        dispatch_id: DispatchId,
        entries: tuple[Entry, ...],
        events: tuple[Event, ...],
        outbox: tuple[OutboxDraft, ...] = (),
        *,
        progress: bool = True,
    ) -> TurnWrite:
        return TurnWrite(dispatch_id, self._head, entries, events, outbox, progress)

    async def _fenced(
        self,
        write: TurnWrite,
        do: Callable[[], Awaitable[T]],
        landed: Callable[[Dispatch], bool] = lambda row: False,
    ) -> T | None:
        """Do one write, surviving a store that goes away: None when it had been committed after all.

        ``landed`` tells it of a write without entries, from the dispatch's row.
        """
        lines, unknown = len(write.entries), False
        while True:
            try:
                return await do()
            except StoreUnavailableError:
                unknown = True
                if await self._answering() == self._head + lines and (lines or await self._shows(write, landed)):
                    return None
            except LeaseLost:
                if not unknown or not lines or await self._answering() != self._head + lines:
                    raise
                return None  # the first try was committed after we had looked

    async def _shows(self, write: TurnWrite, landed: Callable[[Dispatch], bool]) -> bool:
        row = await patiently(self._liveness, lambda: self._store.views.dispatch(write.dispatch_id))
        return row is not None and landed(row)

    async def _answering(self) -> int:
        """Wait for the store to answer again and return the committed head.

        Raises:
            LeaseLost: the token is not ours any more, or the self-fence closed meanwhile.
        """
        while True:
            self._liveness.check()
            try:
                head, token = await self._store.journal.head(self.lease.session_id)
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_PAUSE)
                continue
            if token != self.lease.token:
                raise LeaseLost("the session was taken over while the store was away")
            return head

    async def _keep(self, dispatch_id: DispatchId, entries: tuple[Entry, ...]) -> None:
        """Append to the agent's own store; another head there means another writer."""
        if not entries or self._kept is None:
            return
        bodies = [msgspec.json.encode(EntryLine(dispatch_id, Raw(encode_entry(entry)))) for entry in entries]
        try:
            self._kept_head = await self._kept.append(self.lease.session_id, self._kept_head, bodies)
        except HeadMoved as moved:
            raise LeaseLost("another writer appended to the agent's conversation store") from moved
        self._remember(dispatch_id, entries, self._kept_head)

    def _remember(self, dispatch_id: DispatchId, entries: tuple[Entry, ...], head: int) -> None:
        first = head - len(entries) + 1
        self.lines.extend(JournalLine(first + place, dispatch_id, entry) for place, entry in enumerate(entries))

    def _take(self, stored: list[StoredLine]) -> None:
        for line in stored:
            try:
                self.lines.append(JournalLine(line.seq, line.dispatch_id, decode_entry(line.body)))
            except DamagedEntryError:
                self.damaged.append(line.seq)


def _news(entries: tuple[Entry, ...]) -> int:
    """Count the entries that get the dispatch somewhere: an input only says what it is about."""
    return sum(not isinstance(entry, InputEntry) for entry in entries)


def _unheard_ending(main: list[JournalLine], kept: list[JournalLine]) -> tuple[Entry, ...]:
    """Return what only the main database says of how the last dispatch of an agent's own store ended."""
    last = kept[-1].dispatch_id if kept else None
    heard = [line.entry for line in kept if line.dispatch_id == last]
    told = [line.entry for line in main if line.dispatch_id == last and isinstance(line.entry, AdvisoryEntry)]
    return tuple(entry for entry in told if entry not in heard)


def _kept_line(seq: int, body: bytes) -> JournalLine | None:
    """Read a line of an agent's own store; None when its bytes are damaged, which never blocks later input."""
    try:
        line = msgspec.json.decode(body, type=EntryLine)
        return JournalLine(seq, line.dispatch_id, decode_entry(bytes(line.entry)))
    except (msgspec.DecodeError, UnicodeDecodeError, DamagedEntryError):
        return None


async def _to_its_end(write: Coroutine[Any, Any, T]) -> T:
    """Await a write to its end even if the caller is cancelled meanwhile; a second cancellation ends it."""
    task = asyncio.create_task(write)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
        if not task.cancelled():
            task.exception()  # the caller is going away; what went wrong shows at the next write
        raise
