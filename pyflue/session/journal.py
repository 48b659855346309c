"""One session's journal as its lease holder sees it: lines in memory, every write fenced.

A write whose commit is unknown (the connection broke, the database restarted) is never repeated blindly: the
committed head is read back first. The head moves only under our token, so it tells whether the write landed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from pyflue.dispatches import Dispatch, Lease, OutboxDraft
from pyflue.entries import Entry, JournalLine, decode_entry, encode_entry
from pyflue.errors import DamagedEntryError, LeaseLost, StoreUnavailableError
from pyflue.events import EntryQuarantined, Event
from pyflue.ids import DispatchId
from pyflue.session.liveness import Liveness
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
RETRY_PAUSE: Final = 0.2  # seconds between looks at a store that does not answer


class SessionJournal:
    """The lines of a leased session. ``kept`` is the agent's own conversation store, if it brings one."""

    def __init__(self, store: Store, lease: Lease, liveness: Liveness) -> None:
        self.lease = lease
        self.lines: list[JournalLine] = []
        self.damaged: list[int] = []
        self._store = store
        self._liveness = liveness
        self._head = lease.head
        self._kept: SessionStore | None = None
        self._kept_head = 0
        self._writing = asyncio.Lock()

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
        """Move to the agent's own conversation store: its lines replace those of the main database."""
        rows = await kept.load(self.lease.session_id)
        self._kept, self._kept_head = kept, rows[-1][0] if rows else 0
        self.lines = []
        for seq, body in rows:
            line = msgspec.json.decode(body, type=EntryLine)
            self.lines.append(JournalLine(seq, line.dispatch_id, decode_entry(bytes(line.entry))))

    async def begin(self, dispatch: Dispatch, entries: tuple[Entry, ...], event: Event, budget: timedelta) -> Dispatch:
        """Start an attempt, writing ``entries`` (the input, the first time) with it."""
        quarantined = tuple(EntryQuarantined(seq) for seq in self.damaged)
        write = self._write(dispatch.id, entries, (event, *quarantined), progress=False)
        begun = await self._fenced(lambda: self._store.ledger.begin(self.lease, write, budget), len(entries))
        if begun is None:
            begun = await self._store.views.dispatch(dispatch.id) or dispatch
        self._head += len(entries)
        self._remember(dispatch.id, entries, self._head)
        return begun

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
        async with self._writing:
            if self._kept is None:
                write = self._write(dispatch_id, entries, events, outbox)
                await self._fenced(lambda: self._store.journal.append(self.lease, write), len(entries))
                self._head += len(entries)
                self._remember(dispatch_id, entries, self._head)
            else:
                write = self._write(dispatch_id, (), events, outbox)
                await self._fenced(lambda: self._store.journal.append(self.lease, write), 0)
                await self._keep(dispatch_id, entries)

    async def settle(self, settlement: Settlement) -> Settled:
        """End the dispatch with its last entries in one transaction."""
        dispatch_id, entries = settlement.write.dispatch_id, settlement.write.entries
        async with self._writing:
            if self._kept is not None:
                await self._keep(dispatch_id, entries)
                settlement = msgspec.structs.replace(
                    settlement, write=msgspec.structs.replace(settlement.write, entries=())
                )
            final = msgspec.structs.replace(
                settlement, write=msgspec.structs.replace(settlement.write, head=self._head)
            )
            while True:
                try:
                    settled = await self._store.ledger.settle(self.lease, final)
                    break
                except StoreUnavailableError:
                    await self._answering()
                    row = await self._store.views.dispatch(dispatch_id)
                    if row is not None and row.settled_at is not None:
                        settled = Settled(self._head + len(final.write.entries), released=False)
                        break
            self._head = settled.head
            if self._kept is None:
                self._remember(dispatch_id, entries, self._head)
            return settled

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
        write = self._write(dispatch_id, (), (event,))
        await self._fenced(lambda: self._store.ledger.park(self.lease, write, delay, refund=refund), 0)

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

    async def _fenced(self, write: Callable[[], Awaitable[T]], lines: int) -> T | None:
        """Do one write, surviving a store that goes away: None when it had been committed after all."""
        while True:
            try:
                return await write()
            except StoreUnavailableError:
                head = await self._answering()
                if lines and head == self._head + lines:
                    return None

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
