"""What is left after a run, from every side that saw it: senders, ledger, journal, model, platforms, tools.

``gather`` reads the store; the rest comes from whoever drove the run. ``history.check`` judges it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

import msgspec
from msgspec import Raw, Struct

from pyflue.dispatches import Dispatch, OutboxItem
from pyflue.entries import AnswerEntry, Entry, JournalLine, ToolResultEntry, ToolStartedEntry, decode_entry
from pyflue.events import StoredEvent
from pyflue.ids import DispatchId, SessionId
from pyflue.messages import ToolUsePart
from pyflue.stores.protocol import (
    DispatchQuery,
    EntryLine,
    SessionQuery,
    SessionRow,
    SessionStore,
    Store,
    StoredLine,
)
from pyflue.testing.posted import Posted

PAGE: Final = 500


class Delivery(Struct, frozen=True):
    """One message somebody sent, however often it was delivered. The deliveries of a thread are in the order sent.

    ``text`` is unique in a run and part of the dispatch's input. ``accepted``: some delivery of it was acknowledged.
    ``dispatch_ids``: those named by the answers. ``refused``: it was sent so that it had to be refused, and was.
    """

    text: str
    thread: str
    accepted: bool
    dispatch_ids: tuple[str, ...] = ()
    refused: bool = False


class Effect(Struct, frozen=True):
    """One effect of a tool on the outside world, written to disk before the tool returned.

    ``result``: what a durable step had of it, at the end of the tool's answer; no two effects have the same.
    """

    key: str
    tool: str
    safe: bool
    result: str = ""


class Operation(Struct, frozen=True):
    """One request to the front, and whether it was answered as it should be. ``at``: Unix seconds of its start."""

    at: float
    succeeded: bool


class Fault(Struct, frozen=True):
    """A span in which something was broken on purpose, in Unix seconds.

    ``crash``: a process was killed or paused. ``refusing``: operations may fail meanwhile.
    """

    what: str
    began: float
    ended: float
    crash: bool = True
    refusing: bool = True


class Stored(Struct, frozen=True):
    """Everything the store holds of some sessions. ``kept``: the lines of those whose agent brings a store of its own."""

    dispatches: tuple[Dispatch, ...]
    sessions: tuple[SessionRow, ...]
    lines: Mapping[SessionId, tuple[StoredLine, ...]]
    events: Mapping[DispatchId, tuple[StoredEvent, ...]]
    outbox: tuple[OutboxItem, ...]
    kept: Mapping[SessionId, tuple[JournalLine, ...]] = {}


class Bounds(Struct, frozen=True):
    """What a run promised. ``settle_within``: seconds from the last fault to the last settlement and reply.

    ``attempts``: the highest attempt number that may occur; None for any. ``success``: the share of operations outside
    faults that must have succeeded. ``doubled_replies``: how many replies may be on a platform twice. That is none, except
    where a process was frozen: what it was writing to a socket leaves when it wakes up, whoever has posted it since.
    ``asked_again``: how many recorded answers the model may have been asked for again, for the same reason.
    """

    settle_within: float = 60.0
    attempts: int | None = None
    success: float = 0.95
    doubled_replies: int = 0
    asked_again: int = 0


class History(Struct, frozen=True):
    """A whole run. ``requests`` are the bodies the model received, in order of arrival."""

    deliveries: tuple[Delivery, ...]
    stored: Stored
    requests: tuple[Raw, ...]
    posted: tuple[Posted, ...]
    effects: tuple[Effect, ...]
    operations: tuple[Operation, ...] = ()
    faults: tuple[Fault, ...] = ()
    bounds: Bounds = Bounds()

    def dispatches_by_session(self) -> dict[SessionId, list[Dispatch]]:
        """Return the dispatches of each session by position."""
        ordered = sorted(self.stored.dispatches, key=lambda row: (row.session_id, row.position))
        return {session: list(rows) for session, rows in groupby(ordered, key=lambda row: row.session_id)}

    def journals_of(self, session: SessionId) -> list[tuple[JournalLine, ...]]:
        """Return a session's lines: of the main database, then of its agent's own store, if it brings one."""
        stored = self.stored.lines.get(session, ())
        lines = tuple([JournalLine(line.seq, line.dispatch_id, decode_entry(line.body)) for line in stored])
        return [lines, self.stored.kept[session]] if session in self.stored.kept else [lines]

    def entries_of(self, row: Dispatch) -> list[Entry]:
        """Return the entries of one dispatch, from the store its turns are worked from."""
        if row.session_id in self.stored.kept:
            return [line.entry for line in self.stored.kept[row.session_id] if line.dispatch_id == row.id]
        lines = self.stored.lines.get(row.session_id, ())
        return [decode_entry(line.body) for line in lines if line.dispatch_id == row.id]


class RecordedCall(Struct, frozen=True):
    """A tool call of a recorded answer. ``key`` is its name within its dispatch, as ``resume.next_step`` gives it."""

    key: str
    call: ToolUsePart
    started: bool = False
    result: ToolResultEntry | None = None


def calls_of(entries: Iterable[Entry]) -> list[RecordedCall]:
    """Return the calls of one dispatch with what was recorded of each, in order."""
    calls: dict[str, RecordedCall] = {}
    uses: Counter[str] = Counter()
    for entry in entries:
        if isinstance(entry, AnswerEntry):
            asked = {call.id: call for call in entry.as_answer().tool_calls}
            uses.update(asked.keys())
            for call in asked.values():
                key = _key(call.id, uses)
                calls[key] = RecordedCall(key, call)
        elif isinstance(entry, ToolStartedEntry) and (known := calls.get(_key(entry.call_id, uses))):
            calls[known.key] = msgspec.structs.replace(known, started=True)
        elif isinstance(entry, ToolResultEntry) and (known := calls.get(_key(entry.call_id, uses))):
            calls[known.key] = msgspec.structs.replace(known, result=entry)
    return list(calls.values())


def _key(call_id: str, uses: Counter[str]) -> str:
    return call_id if uses[call_id] <= 1 else f"{call_id}.{uses[call_id]}"


async def gather(store: Store, texts: Iterable[str], kept: SessionStore | None = None) -> Stored:
    """Read all that concerns the sessions in which one of ``texts`` was said. The run should be over.

    ``kept``: the store that agents brought for their conversations, if any did.
    """
    wanted = tuple(texts)
    everything = await all_dispatches(store)
    chosen = {row.session_id for row in everything if any(text in row.input.text for text in wanted)}
    dispatches = tuple(row for row in everything if row.session_id in chosen)
    outbox: list[OutboxItem] = []
    lines: dict[SessionId, tuple[StoredLine, ...]] = {}
    own: dict[SessionId, tuple[JournalLine, ...]] = {}
    for session in sorted(chosen):
        lines[session] = tuple(await store.journal.load(session))
        if kept is not None and (rows := await kept.load(session)):
            own[session] = tuple([_kept_line(seq, body) for seq, body in rows])
        outbox.extend(await store.views.outbox(session_id=session, limit=100_000))
    events = {row.id: tuple(await store.events.read(row.id, limit=100_000)) for row in dispatches}
    sessions = tuple([row for row in await _all_sessions(store) if row.id in chosen])
    return Stored(dispatches, sessions, lines, events, tuple(outbox), own)


def _kept_line(seq: int, body: bytes) -> JournalLine:
    line = msgspec.json.decode(body, type=EntryLine)
    return JournalLine(seq, line.dispatch_id, decode_entry(bytes(line.entry)))


async def all_dispatches(store: Store) -> list[Dispatch]:
    """Read every dispatch the store holds, the newest first."""
    rows: list[Dispatch] = []
    before: DispatchId | None = None
    while page := await store.views.dispatches(DispatchQuery(before=before, limit=PAGE)):
        rows.extend(page)
        before = page[-1].id
    return rows


async def _all_sessions(store: Store) -> list[SessionRow]:
    rows: list[SessionRow] = []
    after: SessionId | None = None
    while page := await store.views.sessions(SessionQuery(after=after, limit=PAGE)):
        rows.extend(page)
        after = page[-1].id
    return rows


def read_effects(lines: Sequence[str]) -> tuple[Effect, ...]:
    """Read effects that tools wrote as JSON lines; a line cut off by a crash had not been synced and is left out."""
    effects: list[Effect] = []
    for line in lines:
        try:
            effects.append(msgspec.json.decode(line, type=Effect))
        except msgspec.DecodeError:
            continue
    return tuple(effects)


def unix(instant: datetime | None) -> float:
    """Return an instant as Unix seconds; 0 for none."""
    return 0.0 if instant is None else instant.timestamp()
