"""Is anybody working, and is anything stuck?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from pyflue.cli.blocking import is_working
from pyflue.cli.checks.finding import Finding, counted, fail, ok, warn
from pyflue.cli.terminal import span
from pyflue.config import Project
from pyflue.dispatches import OutboxItem, WorkerRow
from pyflue.stores.protocol import DispatchQuery, Store, Totals

STUCK_AFTER: Final = timedelta(seconds=60)  # due work is taken within a second or two unless nobody can
SAMPLE: Final = 200
NAMED: Final = 3  # ids named in a message


async def check_backlog(project: Project, store: Store, now: datetime) -> list[Finding]:
    """Look at workers, due sessions and unsent replies."""
    totals = await store.views.totals()
    workers = await store.views.workers()
    findings = [*_workers(workers, totals, now), _queue(project, totals), _due(totals)]
    findings += await _without_agent(store, workers, now)
    findings += await _replies(store, totals, now)
    return findings


def _workers(workers: list[WorkerRow], totals: Totals, now: datetime) -> Iterator[Finding]:
    live = [worker for worker in workers if worker.status == "live" and is_working(worker, now)]
    unsettled = _unsettled(totals)
    if live:
        held = sum(worker.sessions for worker in live)
        hosts = len({worker.host for worker in live})
        yield ok(
            "workers",
            f"{counted(len(live), 'worker')} live on {counted(hosts, 'host')}, holding {counted(held, 'session')}.",
        )
    elif unsettled:
        yield fail("workers", f"None is live, and {counted(unsettled, 'dispatch', 'dispatches')} wait.", _START_ONE)
    else:
        yield warn("workers", "None is live; nothing waits.", _START_ONE)
    lost = [worker for worker in workers if worker.sessions and not is_working(worker, now)]
    if lost:
        sessions = counted(sum(worker.sessions for worker in lost), "session")
        named = _named([worker.id for worker in lost])
        yield warn(
            "dead workers",
            f"{sessions} held by dead workers ({named}).",
            "A live worker frees them within seconds; if they stay, start one.",
        )


_START_ONE: Final = "Start one: `pyflue worker`, or `pyflue dev`."


def _queue(project: Project, totals: Totals) -> Finding:
    unsettled, limit = _unsettled(totals), project.settings.queue.per_deployment
    states = ", ".join(f"{totals.dispatches.get(status, 0)} {status}" for status in ("queued", "running", "waiting"))
    if unsettled >= limit:
        return fail(
            "queue", f"Full: {states}.", "Add workers; admissions are refused meanwhile ([queue] per_deployment)."
        )
    if unsettled * 10 >= limit * 8:
        return warn("queue", f"Over 80 % of its limit of {limit}: {states}.", "Add workers.")
    return ok("queue", f"{states}; the limit is {limit}.")


def _due(totals: Totals) -> Finding:
    if not totals.due_sessions:
        return ok("due work", "No session is due and free.")
    age = timedelta(seconds=totals.oldest_due_seconds)
    sessions = counted(totals.due_sessions, "session is", "sessions are")
    told = f"{sessions} due and free, the oldest for {span(age)}."
    if age > STUCK_AFTER:
        return fail("due work", told, "Start workers that have the agents, or raise `pyflue worker --turns`.")
    return ok("due work", told)


async def _without_agent(store: Store, workers: list[WorkerRow], now: datetime) -> list[Finding]:
    """Find queued work, among the newest, whose agent no live worker has."""
    live = [worker for worker in workers if worker.status == "live" and is_working(worker, now)]
    if not live:
        return []
    known = {agent for worker in live for agent in worker.agents}
    queued = await store.views.dispatches(DispatchQuery(status="queued", limit=SAMPLE))
    missing: dict[str, int] = {}
    for session_id in {row.session_id for row in queued}:
        session = await store.views.session(session_id)
        if session is not None and session.address.agent not in known:
            missing[session.address.agent] = missing.get(session.address.agent, 0) + 1
    return [
        fail("agents at work", f"{counted(count, 'session')} wait for agent {name!r}; no live worker has it.", _DEPLOY)
        for name, count in sorted(missing.items())
    ]


_DEPLOY: Final = "Deploy the agent's file to the workers; without it the work fails as agent_unavailable."


async def _replies(store: Store, totals: Totals, now: datetime) -> list[Finding]:
    findings: list[Finding] = []
    lost = totals.outbox.get("undeliverable", 0)
    if lost:
        some = await store.views.outbox(status="undeliverable", limit=NAMED)
        named = _named([item.id for item in some], lost)
        findings.append(
            warn(
                "undeliverable replies",
                f"{counted(lost, 'reply was', 'replies were')} given up ({named}).",
                "`pyflue logs out_…` says why; `pyflue dispatches replay` runs the work and its reply again.",
            )
        )
    pending = await store.views.outbox(status="pending", limit=SAMPLE)
    late = [item for item in pending if _overdue(item, now) and _is_first(item, pending)]
    if late:
        named = _named([item.id for item in late])
        findings.append(
            fail(
                "late replies",
                f"{counted(len(late), 'reply is', 'replies are')} due for over {span(STUCK_AFTER)} ({named}).",
                "Start a worker whose environment has the channel's secrets.",
            )
        )
    waiting = totals.outbox.get("pending", 0) + totals.outbox.get("sending", 0)
    return findings or [ok("replies", f"{counted(waiting, 'reply', 'replies')} on the way, none late or lost.")]


def _overdue(item: OutboxItem, now: datetime) -> bool:
    return now - item.available_at > STUCK_AFTER


def _is_first(item: OutboxItem, pending: list[OutboxItem]) -> bool:
    """Tell whether nothing of its session is before it: what is behind another waits for that one only."""
    return not any(other.session_id == item.session_id and other.position < item.position for other in pending)


def _unsettled(totals: Totals) -> int:
    return sum(totals.dispatches.get(status, 0) for status in ("queued", "running", "waiting"))


def _named(ids: list[str], total: int = 0) -> str:
    more = max(total, len(ids)) - NAMED
    return ", ".join(ids[:NAMED]) + (f" and {more} more" if more > 0 else "")
