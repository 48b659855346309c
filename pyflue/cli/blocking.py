"""What an unsettled dispatch is waiting for, in words: decided from rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from pyflue.cli.terminal import ago, moment, plain
from pyflue.dispatches import OUTBOX_FINAL, TERMINAL, Dispatch, OutboxItem, WorkerRow
from pyflue.ids import WorkerId
from pyflue.stores.protocol import SessionRow


class Surroundings(Struct, frozen=True):
    """What is around a dispatch. ``head``: the lowest unsettled one of its mailbox. ``parked_for``: why it was parked.

    ``replies``: its own. ``next_reply``: the session's lowest unsent one, of whichever dispatch.
    """

    session: SessionRow
    head: Dispatch | None
    workers: Sequence[WorkerRow]
    now: datetime
    parked_for: str = ""
    replies: Sequence[OutboxItem] = ()
    next_reply: OutboxItem | None = None


def is_working(worker: WorkerRow, now: datetime) -> bool:
    """Tell whether a worker still keeps its sessions: not dead, and heard of within its lease."""
    return worker.status != "dead" and worker.expires_at > now


def blocked_by(dispatch: Dispatch, around: Surroundings) -> str:
    """Say what the dispatch waits for; empty when it is settled and its replies are out."""
    if dispatch.status in TERMINAL:
        return _unsent(dispatch, around)
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


def _unsent(dispatch: Dispatch, around: Surroundings) -> str:
    first = around.next_reply
    if first is None or all(reply.status in OUTBOX_FINAL for reply in around.replies):
        return ""
    if first.dispatch_id != dispatch.id:
        return f"{first.id}, a reply to {first.dispatch_id}, to leave: replies of a session leave in order"
    if first.status == "sending":
        return f"{first.channel} to take {first.id}"
    if first.available_at > around.now:
        reason = f": {first.error}" if first.error else ""
        return f"another try at {first.id} ({ago(first.available_at, around.now)}){reason}"
    return f"a worker that has channel {first.channel!r} to send {first.id}"


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
