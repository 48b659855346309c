"""What was answered in a run: rules of the history checker (``history.py``) over outbox and platforms."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import msgspec
from msgspec import Struct

from pyflue.dispatches import Dispatch, OutboxItem
from pyflue.events import ReplySent, decode_event
from pyflue.session.toolcalls import REPLY
from pyflue.testing.recorded import History, calls_of

FAILURE: Final = "failure"  # the call id of a reply that tells people their request failed
_FENCE: Final = re.compile(r"^ *(`{3,}|~{3,}).*$", re.MULTILINE)


class _ReplyInput(Struct, frozen=True):
    text: str


def replies(history: History) -> Iterator[str]:
    """Each completed dispatch's reply is on its platform whole, each part of it once."""
    posted: dict[str, list[str]] = defaultdict(list)
    for post in history.posted:
        posted[post.key].append(post.text)
    # The receiver of a standard reply drops a webhook-id that it has.
    times = Counter((post.platform, post.key) for post in history.posted if post.platform != "standard")
    doubled = [place for place, count in times.items() if count > 1]
    for platform, key in doubled if len(doubled) > history.bounds.doubled_replies else ():
        yield f"{platform} has {key} twice"
    for item in history.stored.outbox:
        if item.status == "sent" and not posted[item.idempotency_key]:
            yield f"{item.id} is marked sent and nobody has it"
        if any(text != item.body for text in posted[item.idempotency_key]):
            yield f"{item.id} was not posted as it was written"
    known = {item.idempotency_key for item in history.stored.outbox}
    for key in posted.keys() - known:
        yield f"{key} was posted, and no outbox row is its"


def replies_whole(history: History) -> Iterator[str]:
    """The parts of a reply are numbered from zero and together are the final answer, nothing cut and nothing added.

    So are those of each call of the ``reply`` tool that succeeded, and together they are the text it was given.
    """
    for row in history.stored.dispatches:
        items = [item for item in _outbox_of(history, row) if not item.call_id]
        if (parts := [item.part for item in items]) != list(range(len(items))):
            yield f"{row.id} has the parts {parts}"
        if row.status == "completed" and row.input.reply is not None and row.input.reply.mode == "auto":
            answer = row.result.text if row.result else ""
            if _words("".join(item.body for item in items)) != _words(answer):
                yield f"{row.id} answered {len(answer)} characters, and its {len(items)} parts say something else"
        yield from _posted_by_tool(history, row)


def _posted_by_tool(history: History, row: Dispatch) -> Iterator[str]:
    calls = {one.key: one for one in calls_of(history.entries_of(row)) if one.call.name == REPLY}
    succeeded = {key for key, one in calls.items() if one.result is not None and one.result.outcome == "done"}
    queued: dict[str, list[OutboxItem]] = defaultdict(list)
    for item in _outbox_of(history, row):
        if item.call_id and item.call_id != FAILURE:
            queued[item.call_id].append(item)
    if strange := sorted(queued.keys() ^ succeeded):
        yield f"{row.id} has replies and no successful call, or such a call and no reply, for {strange}"
    for key in sorted(queued.keys() & succeeded):
        items, given = queued[key], msgspec.json.decode(calls[key].call.input, type=_ReplyInput).text
        if (parts := [item.part for item in items]) != list(range(len(items))):
            yield f"{row.id} has the parts {parts} of {key}"
        if _words("".join(item.body for item in items)) != _words(given):
            yield f"{row.id}: {key} was given {len(given)} characters, and its {len(items)} parts say something else"


def reply_order(history: History) -> Iterator[str]:
    """The replies of one session were queued in the order of its dispatches and reached their platform in that order."""
    first: dict[str, int] = {}
    for place, post in enumerate(history.posted):
        first.setdefault(post.key, place)
    places = {row.id: row.position for row in history.stored.dispatches}
    items = sorted(history.stored.outbox, key=lambda item: (item.session_id, item.position))
    for before, after in pairwise(items):
        if before.session_id != after.session_id:
            continue
        if places.get(after.dispatch_id, 0) < places.get(before.dispatch_id, 0):
            yield f"{after.id} answers an earlier message than {before.id}, which is before it"
        one, two = first.get(before.idempotency_key), first.get(after.idempotency_key)
        if one is not None and two is not None and two < one:
            yield f"{after.id} was posted before {before.id}"


def reply_place(history: History) -> Iterator[str]:
    """Every reply is on the platform and in the thread its message came from."""
    threads: dict[str, str] = {}
    for row in history.stored.dispatches:
        came_from = next((one.thread for one in history.deliveries if one.text in row.input.text), None)
        if came_from is not None:
            threads[row.id] = came_from
    posts = {post.key: post for post in history.posted}
    for item in history.stored.outbox:
        post, thread = posts.get(item.idempotency_key), threads.get(item.dispatch_id)
        if post is not None and (post.platform != item.channel or post.thread != thread):
            yield f"{item.id} for {item.channel} {thread} is in {post.platform} {post.thread}"


def replies_recorded(history: History) -> Iterator[str]:
    """A reply marked sent has the id its platform gave it, and exactly one event that says so."""
    ids: dict[str, set[str]] = defaultdict(set)
    for post in history.posted:
        ids[post.key].add(post.id)
    for row in history.stored.dispatches:
        events = [decode_event(event.data) for event in history.stored.events.get(row.id, ())]
        sent = Counter(event.outbox_id for event in events if isinstance(event, ReplySent))
        for item in _outbox_of(history, row):
            if item.status == "sent" and sent[item.id] != 1:
                yield f"{item.id} is marked sent and has {sent[item.id]} reply.sent events"
            if item.status == "sent" and item.receipt not in ids[item.idempotency_key]:
                yield f"{item.id} has the receipt {item.receipt!r}, and the platform gave {ids[item.idempotency_key]}"


def _outbox_of(history: History, row: Dispatch) -> list[OutboxItem]:
    """Return a dispatch's replies as they are queued."""
    items = sorted(history.stored.outbox, key=lambda item: item.position)
    return [item for item in items if item.dispatch_id == row.id]


def _words(text: str) -> str:
    """Leave out what cutting a reply into parts may change: white space, and fences closed and opened at a cut."""
    return "".join(_FENCE.sub("", text).split())
