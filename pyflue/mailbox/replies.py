"""From a text to outbox rows: split for the platform, keyed so that no part can be posted twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pyflue.dispatches import Dispatch, OutboxDraft, ReplyAddress
from pyflue.mailbox.workplace import Workplace


def draft(
    place: Workplace, dispatch: Dispatch, address: ReplyAddress, text: str, call_id: str
) -> tuple[OutboxDraft, ...]:
    """Cut a reply into parts and give each its key: the same call always makes the same keys."""
    channel = place.channels.get(address.channel)
    parts = [text] if channel is None else channel.split(text)
    stem = f"{dispatch.id}-{call_id}" if call_id else str(dispatch.id)
    return tuple(
        OutboxDraft(place.ids.outbox(), address.channel, address.destination, part, f"{stem}-{number}", call_id, number)
        for number, part in enumerate(parts)
    )


def automatic_reply(place: Workplace, dispatch: Dispatch, text: str) -> tuple[OutboxDraft, ...]:
    """Return the rows that post a final answer, where answers are posted by themselves."""
    address = dispatch.input.reply
    if address is None or address.mode != "auto" or not text.strip():
        return ()
    return draft(place, dispatch, address, text, "")


def failure_reply(place: Workplace, dispatch: Dispatch) -> tuple[OutboxDraft, ...]:
    """Return the rows that tell people their request failed: silence is the worst answer."""
    address = dispatch.input.reply
    if address is None or address.mode == "none" or not address.failure_reply:
        return ()
    text = address.failure_reply.replace("{dispatch_id}", dispatch.id)
    return draft(place, dispatch, address, text, "failure")


def reply_tool_drafts(place: Workplace, dispatch: Dispatch) -> Callable[[str, str], tuple[OutboxDraft, ...]] | None:
    """Return what the ``reply`` tool posts with, bound to the destination the model never sees."""
    address = dispatch.input.reply
    if address is None or address.mode != "tool":
        return None
    return partial(draft, place, dispatch, address)
