"""What an unsettled dispatch is waiting for, in words: decided from rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from pyflue.cli.terminal import ago, moment, plain
from pyflue.dispatches import TERMINAL, Dispatch, WorkerRow
from pyflue.ids import WorkerId
from pyflue.stores.protocol import SessionRow


class Surroundings(Struct, frozen=True):
    """What is around a dispatch. ``head``: the lowest unsettled one of its mailbox. ``parked_for``: why it was parked."""

    session: SessionRow
    head: Dispatch | None
    workers: Sequence[WorkerRow]
    now: datetime
    parked_for: str = ""


def is_working(worker: WorkerRow, now: datetime) -> bool:
    """Tell whether a worker still keeps its sessions: not dead, and heard of within its lease."""
    return worker.status != "dead" and worker.expires_at > now


def blocked_by(dispatch: Dispatch, around: Surroundings) -> str:
    """Say what the dispatch waits for; empty when it is settled."""
    if dispatch.status in TERMINAL:
        return ""
    if around.head is not None and around.head.position < dispatch.position:
        behind = "" if dispatch.position - around.head.position == 1 else ", the head of its mailbox"
        return f"{around.head.id}{behind} ({around.head.status}): a conversation is worked in order"
    if dispatch.status == "waiting":
        return "an approval"
    if (owner := around.session.lease_owner) is not None:
        return _held(owner, around)
    if dispatch.status == "queued" and dispatch.available_at > around.now:
        reason = f" because of {plain(around.parked_for)}" if around.parked_for else ""
        return f"parked until {moment(dispatch.available_at)} ({ago(dispatch.available_at, around.now)}){reason}"
    return _unclaimed(around)


def _held(owner: WorkerId, around: Surroundings) -> str:
    worker = next((each for each in around.workers if each.id == owner), None)
    if worker is not None and is_working(worker, around.now):
        return f"the turn that {owner} on {worker.host} is working on"
    return f"another worker to take it over from {owner}, which is dead"


def _unclaimed(around: Surroundings) -> str:
    agent = around.session.address.agent
    live = [worker for worker in around.workers if worker.status == "live" and is_working(worker, around.now)]
    if not live:
        return "a worker: none is live"
    if not any(agent in worker.agents for worker in live):
        return f"a worker that has agent {agent!r}: none of the {len(live)} live ones does"
    return "a free place on a worker"
