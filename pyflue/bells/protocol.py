"""The bell: what wakes a worker for a mailbox, and what wakes a reader of a stream.

A bell carries ids, never truth. Every method is best effort, returns at once and never raises: losing or
doubling a ring changes nothing, because workers look for due mailboxes by themselves every second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pyflue.ids import SessionId


class Bell(Protocol):
    def ring(self, session_id: SessionId) -> None:
        """Ask some worker to look at this mailbox; detached from the caller, given up after 250 ms, not retried."""
        ...

    def announce(self, stream: str) -> None:
        """Tell readers that this stream has new events; many announcements may become one."""
        ...

    def listen(self, stream: str) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Yield each time the stream may have grown, and at least once a second, so a lost announcement costs a second."""
        ...

    async def open(self) -> None:
        """Prepare connections; a broker that is down is not an error."""
        ...

    async def close(self) -> None:
        """Drop what was not rung yet and disconnect; idempotent."""
        ...
