"""Does the ledger agree with the journal? A bounded sample of what is newest, read while others write.

Nothing is locked, so a comparison that fails counts only if the session was the same before and after it.
"""

from __future__ import annotations

from typing import Final

from pyflue.cli.checks.finding import Finding, counted, fail, ok
from pyflue.cli.lookup import unsettled_of
from pyflue.dispatches import Dispatch
from pyflue.entries import AnswerEntry, decode_entry
from pyflue.errors import DamagedEntryError, UnknownEntryKindError
from pyflue.ids import SessionId
from pyflue.stores.protocol import DispatchQuery, SessionRow, Store, StoredLine

COMPLETED: Final = 200  # newest completed dispatches whose answer is looked for
UNSETTLED: Final = 50  # newest queued and running ones whose sessions are looked at too
SESSIONS: Final = 100  # sessions compared at most
LINES: Final = 500  # latest lines of a session's journal that are read
TRIES: Final = 3
NAMED: Final = 5  # contradictions told one by one

RESTORE: Final = (
    "Keep a copy of the database and report it: this must not happen. `pyflue sessions show --entries` shows more."
)


async def check_consistency(store: Store, own_journal: frozenset[str]) -> list[Finding]:
    """Compare the newest dispatches and their sessions. ``own_journal``: agents whose entries are kept elsewhere."""
    completed = await store.views.dispatches(DispatchQuery(status="completed", limit=COMPLETED))
    unsettled = [
        row
        for status in ("running", "queued")
        for row in await store.views.dispatches(DispatchQuery(status=status, limit=UNSETTLED))
    ]
    sampled: dict[SessionId, list[Dispatch]] = {}
    for row in [*unsettled, *completed]:
        if row.session_id in sampled or len(sampled) < SESSIONS:
            sampled.setdefault(row.session_id, []).append(row)
    wrong: list[str] = []
    for session_id, rows in sampled.items():
        wrong += await _contradictions(store, session_id, rows, own_journal)
    if not wrong:
        dispatches = counted(sum(map(len, sampled.values())), "dispatch", "dispatches")
        return [
            ok(
                "ledger and journal",
                f"They agree: newest {dispatches} of {counted(len(sampled), 'session')} looked at.",
            )
        ]
    findings = [fail("ledger and journal", told, RESTORE) for told in wrong[:NAMED]]
    if len(wrong) > NAMED:
        findings.append(fail("ledger and journal", f"{len(wrong) - NAMED} more contradictions.", RESTORE))
    return findings


async def _contradictions(
    store: Store, session_id: SessionId, sampled: list[Dispatch], own_journal: frozenset[str]
) -> list[str]:
    """Compare one session, again while it is being written to."""
    for _ in range(TRIES):
        row = await store.views.session(session_id)
        if row is None:
            return [f"Dispatch {sampled[0].id} belongs to session {session_id}, which is not there."]
        unsettled = await unsettled_of(store, row)
        lines = await store.journal.load(session_id, max(row.head - LINES, 0), LINES + 1)
        found = [*_mailbox(row, [*sampled, *unsettled], len(unsettled)), *_journal(row, lines)]
        if row.address.agent not in own_journal:
            found += _answers(row, lines, sampled)
        if not found or await store.views.session(session_id) == row:
            return found
    return []  # a session that changes with each look is in use, not broken


def _mailbox(row: SessionRow, dispatches: list[Dispatch], unsettled: int) -> list[str]:
    wrong: list[str] = []
    highest = max((dispatch.position for dispatch in dispatches), default=0)
    if highest > row.mailbox_head:
        wrong.append(f"Session {row.id} counts {row.mailbox_head} in its mailbox, but one has position {highest}.")
    if unsettled != row.unsettled:
        wrong.append(f"Session {row.id} counts {row.unsettled} unsettled dispatches, but has {unsettled}.")
    return wrong


def _journal(row: SessionRow, lines: list[StoredLine]) -> list[str]:
    numbers = [line.seq for line in lines]
    first = max(row.head - LINES, 0) + 1
    if numbers != list(range(first, row.head + 1)):
        last = numbers[-1] if numbers else 0
        return [f"Session {row.id} has head {row.head}, but its journal ends at {last} or has gaps."]
    return []


def _answers(row: SessionRow, lines: list[StoredLine], sampled: list[Dispatch]) -> list[str]:
    """Find completed dispatches without a final answer, among those the lines read still reach back to."""
    answered = {line.dispatch_id for line in lines if _is_answer(line)}
    reached = {line.dispatch_id for line in lines}
    whole = row.head <= LINES
    return [
        f"Dispatch {dispatch.id} is completed, but its journal has no answer."
        for dispatch in sampled
        if dispatch.status == "completed"
        and dispatch.id not in answered
        and (whole or dispatch.id in reached)
        and dispatch.id != (lines[0].dispatch_id if lines and not whole else "")
    ]


def _is_answer(line: StoredLine) -> bool:
    if line.kind != "answer":
        return False
    try:
        return isinstance(decode_entry(line.body), AnswerEntry)
    except (DamagedEntryError, UnknownEntryKindError):
        return True  # it was one: damage and newer releases are not a contradiction between ledger and journal
