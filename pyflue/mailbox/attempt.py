"""One attempt at a dispatch: budgets first, then the agent's own code, then the turn loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Final

import msgspec

from pyflue.agents import AgentCreateContext, ResolvedAgent, build
from pyflue.config import blotted
from pyflue.dispatches import Dispatch, Mailbox
from pyflue.entries import Entry, InputEntry, JournalLine
from pyflue.errors import AgentBuildError, ConfigurationError, HandBack, LeaseLost, UnknownEntryKindError
from pyflue.events import DispatchStarted
from pyflue.mailbox.replies import reply_tool_drafts
from pyflue.mailbox.workplace import Workplace
from pyflue.models.resolve import choose_model
from pyflue.observers.logs import log
from pyflue.profiles import AgentLimits
from pyflue.session.backoff import pause_before_retry
from pyflue.session.journal import SessionJournal
from pyflue.session.loop import work
from pyflue.session.resume import Finished, WriteInput, next_step, of_dispatch
from pyflue.session.turn import Aborted, Completed, Failed, Parked, Turn, TurnControl, Verdict

BUILD_SECONDS: Final = 60.0  # an initializer may look something up; one that hangs must not keep its slot for ever
NEWER_ENTRY_PAUSE = timedelta(seconds=30)  # time for a worker of the newer release to take the session


def judge(dispatch: Dispatch, lines: list[JournalLine], limits: AgentLimits, now: datetime) -> Verdict | None:
    """Decide from rows and entries alone whether there is anything left to do; None when there is.

    Finished work is kept whatever the budgets say; then an abort, then the attempts, then the deadlines.
    """
    step = next_step(of_dispatch(lines, dispatch.id))
    if isinstance(step, Finished):
        return Completed(step.answer, ())
    if dispatch.abort_requested_at is not None:
        return Aborted()
    if dispatch.attempts >= limits.max_attempts:
        return Failed("attempts_exhausted", f"{dispatch.attempts} attempts in a row got nowhere.")
    if dispatch.deadline_at is not None and now >= dispatch.deadline_at:
        return Failed("deadline", "Its wall-clock budget is used up.")
    if dispatch.started_at is None and dispatch.expires_at is not None and now >= dispatch.expires_at:
        return Failed("expired", "It waited in the queue for longer than its sender wanted.")
    return None


async def attempt(place: Workplace, journal: SessionJournal, mailbox: Mailbox, dispatch: Dispatch) -> Verdict:
    """Work the dispatch once, to a verdict.

    Raises:
        LeaseLost: stop; somebody else has it.
        HandBack: this process is stopping; give it back.
    """
    limits = place.limits_of(journal.lease.address.agent)
    verdict = judge(dispatch, journal.lines, limits, mailbox.now)
    if verdict is not None:
        return verdict
    control = TurnControl()
    control.draining = place.draining
    place.running[dispatch.id] = control
    try:
        begun = await _begin(place, journal, dispatch, limits)
        before = journal.appended
        verdict = await _stoppable(control, _run(place, journal, begun, control, mailbox.now))
    finally:
        del place.running[dispatch.id]
    return _spend(verdict, begun.attempts, limits, progressed=journal.appended > before)


async def _begin(place: Workplace, journal: SessionJournal, dispatch: Dispatch, limits: AgentLimits) -> Dispatch:
    """Count the attempt and write the input, both before any user code runs."""
    needs_input = isinstance(next_step(of_dispatch(journal.lines, dispatch.id)), WriteInput)
    entries: tuple[Entry, ...] = (_input_entry(dispatch),) if needs_input else ()
    event = DispatchStarted(dispatch.attempts + 1, place.worker_id)
    begun = await journal.begin(dispatch, entries, event, timedelta(seconds=limits.wall_clock))
    place.bell.announce(dispatch.id)
    return begun


def _input_entry(dispatch: Dispatch) -> InputEntry:
    given = dispatch.input
    return InputEntry(given.text, given.role, given.type, given.attributes)


async def _stoppable(control: TurnControl, run: Coroutine[None, None, Verdict]) -> Verdict:
    """Run the attempt in a task of its own, so that an abort, a drain or a lost lease can cancel just it."""
    task = asyncio.create_task(run, name="pyflue-attempt")
    control.attach(task)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    if not task.cancelled():
        return task.result()
    match control.reason:
        case "abort":
            return Aborted()
        case "stop":
            raise HandBack
        case _:
            raise LeaseLost("the attempt was cancelled")


async def _run(
    place: Workplace, journal: SessionJournal, dispatch: Dispatch, control: TurnControl, now: datetime
) -> Verdict:
    """Build the agent and run the turn loop. ``now`` is the store's time."""
    try:
        agent = await _build(place, journal, dispatch)
        model, model_id = place.models.resolve(choose_model(agent.name, agent.model, place.settings.agents.model))
    except ConfigurationError as error:
        log(
            "agent.build_failed",
            level="error",
            agent=journal.lease.address.agent,
            reason=error.code,
            detail=error.detail or f"{error.what} {error.cause}",
        )
        delay = pause_before_retry(dispatch.id, dispatch.attempts, place.settings.retry)
        said = blotted(str(error), place.secrets.all)  # it may repeat what the agent's own code raised
        return Parked(error.code, delay, refund=False, message=said)
    if agent.persist is not None:
        try:
            await journal.keep_in(agent.persist)
        except UnknownEntryKindError as error:
            return newer_entry(error)
        if isinstance(next_step(of_dispatch(journal.lines, dispatch.id)), WriteInput):
            await journal.append(dispatch.id, (_input_entry(dispatch),))
    turn = Turn(
        agent=agent,
        model=model,
        model_id=model_id,
        dispatch=dispatch,
        journal=journal,
        steps=place.store.steps,
        liveness=place.liveness,
        control=control,
        clock=place.clock,
        retry=place.settings.retry,
        deadline=_deadline(place, dispatch, now),
        draft=reply_tool_drafts(place, dispatch),
    )
    return await work(turn)


async def _build(place: Workplace, journal: SessionJournal, dispatch: Dispatch) -> ResolvedAgent:
    """Run the agent's initializer.

    Raises:
        ConfigurationError: it raised, took too long, or what it returned is not an agent.
    """
    address, payload = journal.lease.address, dispatch.input.payload
    context = AgentCreateContext(
        id=address.instance_id,
        env=dict(place.env),
        payload=None if payload is None else msgspec.json.decode(payload),
    )
    try:
        async with asyncio.timeout(BUILD_SECONDS):
            built = await build(place.registry.get(address.agent), context, address.agent)
    except TimeoutError:
        raise AgentBuildError(address.agent, f"Its initializer took over {BUILD_SECONDS:g} seconds.") from None
    longest = built.max_tokens or place.settings.models.anthropic.max_tokens
    return msgspec.structs.replace(built, max_tokens=longest)


def _deadline(place: Workplace, dispatch: Dispatch, now: datetime) -> float:
    """Turn the row's deadline, which is the store's time as ``now`` is, into this process's monotonic seconds."""
    if dispatch.deadline_at is None:
        return float("inf")
    return place.clock.monotonic() + (dispatch.deadline_at - now).total_seconds()


def _spend(verdict: Verdict, attempts: int, limits: AgentLimits, *, progressed: bool) -> Verdict:
    """Turn the last retry an agent allows into its failure; an attempt that got somewhere starts the count again."""
    if isinstance(verdict, Parked) and not verdict.refund and not progressed and attempts >= limits.max_attempts:
        return Failed(verdict.reason, f"{verdict.message} (attempt {attempts} of {limits.max_attempts})")
    return verdict


def newer_entry(error: UnknownEntryKindError) -> Parked:
    """Leave a session to workers of the release that wrote to it; no attempt is spent."""
    return Parked(error.code, NEWER_ENTRY_PAUSE, refund=True, message=str(error))
