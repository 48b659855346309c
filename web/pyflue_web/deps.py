"""What the front works with, handed to it once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from msgspec import Struct

from pyflue.channels.protocol import Channel
from pyflue.clock import Clock
from pyflue.config import Settings
from pyflue.ids import Ids
from pyflue.mailbox.admit import Admitter
from pyflue.stores.protocol import Store


class WebDeps(Struct, frozen=True):
    """The parts of a front. All belong to the event loop that serves.

    ``ping_broker`` tells whether the broker answers; None where there is none. ``stopping`` is set once the process
    was asked to end.
    """

    admitter: Admitter
    channels: Mapping[str, Channel]
    settings: Settings
    store: Store
    clock: Clock
    ids: Ids
    stopping: asyncio.Event
    ping_broker: Callable[[], Awaitable[bool]] | None = None
