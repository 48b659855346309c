"""From a verdict to the ledger: settled, parked or given back, each in one transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_never

from pyflue.dispatches import Dispatch, DispatchError, Mailbox
from pyflue.entries import AdvisoryEntry, AnswerEntry, Entry, JournalLine, ToolResultEntry, ToolStartedEntry
from pyflue.events import DispatchHandedBack, DispatchParked, DispatchSettled, Event
from pyflue.mailbox.replies import automatic_reply, failure_reply
from pyflue.mailbox.workplace import Workplace
from pyflue.observers.logs import log
from pyflue.session.journal import SessionJournal
from pyflue.session.loop import answered
from pyflue.session.resume import of_dispatch, open_calls, result_of, tally
from pyflue.session.toolcalls import UNKNOWN_OUTCOME
from pyflue.session.turn import Aborted, Completed, Failed, Parked, Verdict
from pyflue.stores.protocol import Settlement

NOT_RUN = "This call was not run: the request ended before it started."
STOPPED = "The request above was stopped before it was finished."
FAILED = "The request above could not be finished."


async def conclude(
    place: Workplace, journal: SessionJournal, mailbox: Mailbox, dispatch: Dispatch, verdict: Verdict
) -> bool:
    """Write the verdict; return whether the lease was given back in the same transaction.

    Raises:
        LeaseLost: somebody else has the session; nothing was written.
    """
    match verdict:
        case Parked():
            await park(place, journal, dispatch, verdict)
            return False
        case Completed():
            settlement = _completed(place, journal, dispatch, verdict)
        case Failed():
            settlement = _failed(place, journal, dispatch, verdict)
        case Aborted():
            settlement = _aborted(journal, dispatch)
        case _:
            assert_never(verdict)
    return await _settle(place, journal, mailbox, dispatch, settlement)


async def park(place: Workplace, journal: SessionJournal, dispatch: Dispatch, verdict: Parked) -> None:
    """Put the dispatch back until its delay has passed; nobody holds it meanwhile."""
    delay_ms = round(verdict.delay.total_seconds() * 1000)
    event = DispatchParked(verdict.reason, delay_ms, verdict.message)
    await journal.park(dispatch.id, event, verdict.delay, refund=verdict.refund)
    place.bell.announce(dispatch.id)
    log("dispatch.parked", dispatch_id=dispatch.id, reason=verdict.reason, delay_ms=delay_ms)


async def hand_back(place: Workplace, journal: SessionJournal, dispatch: Dispatch) -> None:
    """Give the dispatch back because this process is stopping; no attempt is spent."""
    await journal.park(dispatch.id, DispatchHandedBack(place.worker_id), timedelta(0), refund=True)
    place.bell.announce(dispatch.id)
    log("dispatch.handed_back", dispatch_id=dispatch.id)


async def _settle(
    place: Workplace, journal: SessionJournal, mailbox: Mailbox, dispatch: Dispatch, settlement: Settlement
) -> bool:
    drafts = settlement.write.outbox
    last = Settlement(
        settlement.write,
        settlement.outcome,
        settlement.result,
        settlement.error,
        release_if_seen=mailbox.seen if mailbox.unsettled == 1 else None,
        keep_first_reply=bool(drafts) and drafts[0].channel in place.channels,
    )
    async with place.gate.taking():
        settled = await journal.settle(last)
        if settled.reply is not None:
            place.deliver(settled.reply)
    place.bell.announce(dispatch.id)
    error = settlement.error.code if settlement.error is not None else None
    log("dispatch.settled", dispatch_id=dispatch.id, outcome=settlement.outcome, error_code=error)
    return settled.released


def _completed(place: Workplace, journal: SessionJournal, dispatch: Dispatch, verdict: Completed) -> Settlement:
    lines = _with(journal, dispatch, verdict.entries)
    used = tally(lines)
    result = result_of(verdict.answer, used)
    drafts = automatic_reply(place, dispatch, result.text)
    recorded: tuple[Event, ...] = ()
    if verdict.entries:
        recorded = (answered(verdict.answer, used.turns, journal.head + 1, verdict.duration_ms),)
    settled = DispatchSettled("completed", used.turns, used.usage, len(drafts))
    entries = (*verdict.entries, *_closing(lines))
    write = journal.write_of(dispatch.id, entries, (*recorded, settled), drafts)
    return Settlement(write, "completed", result)


def _failed(place: Workplace, journal: SessionJournal, dispatch: Dispatch, verdict: Failed) -> Settlement:
    lines = of_dispatch(journal.lines, dispatch.id)
    drafts = failure_reply(place, dispatch)
    used = tally(lines)
    settled = DispatchSettled("failed", used.turns, used.usage, len(drafts), verdict.code, verdict.message)
    write = journal.write_of(dispatch.id, _ending(lines, "failed", FAILED), (settled,), drafts)
    return Settlement(write, "failed", error=DispatchError(verdict.code, verdict.message))


def _aborted(journal: SessionJournal, dispatch: Dispatch) -> Settlement:
    lines = of_dispatch(journal.lines, dispatch.id)
    used = tally(lines)
    settled = DispatchSettled("aborted", used.turns, used.usage)
    write = journal.write_of(dispatch.id, _ending(lines, "aborted", STOPPED), (settled,))
    return Settlement(write, "aborted")


def _with(journal: SessionJournal, dispatch: Dispatch, entries: tuple[Entry, ...]) -> list[JournalLine]:
    """Return the dispatch's lines as they will be once ``entries`` are written."""
    lines = of_dispatch(journal.lines, dispatch.id)
    return [*lines, *(JournalLine(journal.head + 1 + place, dispatch.id, entry) for place, entry in enumerate(entries))]


def _ending(lines: list[JournalLine], code: str, text: str) -> tuple[Entry, ...]:
    """Close what is open and tell the model, if it had anything to do with this dispatch, that it ended early."""
    if not lines:
        return ()
    return (*_closing(lines), AdvisoryEntry(code, text, for_model=True))


def _closing(lines: list[JournalLine]) -> tuple[Entry, ...]:
    """Give every open tool call a result, so that the history stays valid for the model."""
    if not any(isinstance(line.entry, AnswerEntry) for line in lines):
        return ()
    started = {line.entry.call_id for line in lines if isinstance(line.entry, ToolStartedEntry)}
    return tuple(
        ToolResultEntry(call.id, call.name, UNKNOWN_OUTCOME, "unknown")
        if call.id in started
        else ToolResultEntry(call.id, call.name, NOT_RUN, "not_run")
        for call in open_calls(lines)
    )
