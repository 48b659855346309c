"""What runs around a wake-up: a log line when one fails, and nothing else.

Dramatiq's own list is left out on purpose, each for a reason: ``Retries`` (rescue is the retry), ``TimeLimit``
(the actor only hands over), ``AgeLimit`` (a late wake-up is harmless), ``ShutdownNotifications`` (turns are
stopped on the event loop), ``Callbacks`` and ``Pipelines`` (a wake-up leads nowhere), ``AsyncIO`` (the turn runs
on the worker's own loop, not on one of Dramatiq's).
"""

from __future__ import annotations

from dramatiq import Broker, MessageProxy
from dramatiq.middleware import Middleware

from pyflue.observers.logs import log


class LogDeadLetters(Middleware):
    """Says when a wake-up was moved to the dead letters: another program writes to our queue."""

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        log("wake.dead_lettered", level="error", actor=message.actor_name, queue=message.queue_name)


def middleware() -> list[Middleware]:
    """Return the middleware of a wake broker, in order."""
    return [LogDeadLetters()]
