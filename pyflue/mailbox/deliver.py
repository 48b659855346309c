"""Sending replies: one at a time and in order for each session, never forgotten, never blindly repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from pyflue.channels.protocol import Channel, SendFailure, SendReceipt
from pyflue.dispatches import OutboxItem
from pyflue.errors import LeaseLost
from pyflue.events import ReplyDelayed, ReplySent, ReplyUndeliverable
from pyflue.mailbox.workplace import Workplace
from pyflue.observers.logs import bind, log
from pyflue.session.backoff import doubled
from pyflue.session.liveness import patiently

OTHER_WORKERS_PAUSE = timedelta(seconds=30)  # for a channel that is configured elsewhere in the fleet, but not here


async def deliver(place: Workplace, item: OutboxItem) -> None:
    """Send an item this process has taken, then whatever of its session is next."""
    following: OutboxItem | None = item
    try:
        while following is not None:
            current = following
            place.sending.add(current.id)
            try:
                with bind(outbox_id=current.id, dispatch_id=current.dispatch_id, session_id=current.session_id):
                    following = await _deliver_one(place, current)
            finally:
                place.sending.discard(current.id)
    except LeaseLost:
        place.doubtful = True  # a mark of ours may have landed unseen, and have taken the next reply for us
        log("delivery.lost", worker_id=place.worker_id)


async def _deliver_one(place: Workplace, item: OutboxItem) -> OutboxItem | None:
    channel = place.channels.get(item.channel)
    if channel is None:
        if _is_too_old(place, item):
            return await _give_up(place, item, f"No worker that took it has channel {item.channel!r}.")
        await _delay(place, item, OTHER_WORKERS_PAUSE, "channel_not_configured_here", ambiguous=item.recovered)
        return None
    place.liveness.check()
    try:
        async with asyncio.timeout(place.settings.outbox.timeout):
            receipt = await channel.send(item)
    except SendFailure as failure:
        return await _failed(place, item, failure)
    except TimeoutError:
        return await _failed(place, item, SendFailure("The platform did not answer in time.", ambiguous=True))
    except Exception as error:  # noqa: BLE001 - the actor: a channel's bug must not lose the reply
        log("delivery.crashed", level="error", channel=item.channel, error=type(error).__name__, exc_info=error)
        return await _failed(place, item, SendFailure(f"{type(error).__name__} inside the channel.", ambiguous=True))
    return await _sent(place, item, channel, receipt)


async def _sent(place: Workplace, item: OutboxItem, channel: Channel, receipt: SendReceipt) -> OutboxItem | None:
    event = ReplySent(item.id, channel.name, item.part, receipt.id, item.attempts, receipt.found)
    following = await _next(place, lambda: place.store.outbox.sent(item, place.worker_id, receipt.id, event))
    place.bell.announce(item.dispatch_id)
    log("reply.sent", channel=channel.name, part=item.part, attempts=item.attempts)
    return following


async def _failed(place: Workplace, item: OutboxItem, failure: SendFailure) -> OutboxItem | None:
    settings = place.settings.outbox
    tried_enough = failure.retry_after is None and item.attempts >= settings.max_attempts
    if failure.permanent or tried_enough or _is_too_old(place, item):
        return await _give_up(place, item, failure.what)
    delay = failure.retry_after or doubled(item.id, item.attempts, settings.first_delay, settings.longest_delay)
    await _delay(place, item, delay, failure.what, ambiguous=failure.ambiguous or item.recovered)
    return None


async def _next(place: Workplace, finish: Callable[[], Awaitable[OutboxItem | None]]) -> OutboxItem | None:
    """Finish an item; what comes back was taken for us in the same moment, and is noted before anybody may doubt it."""
    async with place.gate.taking():
        following = await patiently(place.liveness, finish)
        if following is not None:
            place.sending.add(following.id)
    return following


def _is_too_old(place: Workplace, item: OutboxItem) -> bool:
    return (place.clock.now() - item.created_at).total_seconds() >= place.settings.outbox.give_up_after


async def _give_up(place: Workplace, item: OutboxItem, reason: str) -> OutboxItem | None:
    event = ReplyUndeliverable(item.id, item.channel, reason)
    log("reply.undeliverable", level="error", channel=item.channel, attempts=item.attempts)
    following = await _next(place, lambda: place.store.outbox.undeliverable(item, place.worker_id, reason, event))
    place.bell.announce(item.dispatch_id)
    return following


async def _delay(place: Workplace, item: OutboxItem, delay: timedelta, reason: str, *, ambiguous: bool) -> None:
    delay_ms = round(delay.total_seconds() * 1000)
    event = ReplyDelayed(item.id, item.channel, delay_ms, reason)
    await patiently(place.liveness, lambda: place.store.outbox.retry(item, delay, reason, event, ambiguous=ambiguous))
    place.bell.announce(item.dispatch_id)
    log("reply.delayed", channel=item.channel, delay_ms=delay_ms, attempts=item.attempts)
