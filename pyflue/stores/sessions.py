"""A conversation store that forgets: for tests, and for agents whose history need not outlive the process."""

from __future__ import annotations

from collections.abc import Sequence

from pyflue.stores.protocol import HeadMoved


class InMemorySessionStore:
    """A ``SessionStore`` in this process's memory."""

    def __init__(self) -> None:
        self._entries: dict[str, list[bytes]] = {}

    async def append(self, session: str, expected_head: int, entries: Sequence[bytes]) -> int:
        stored = self._entries.get(session, [])
        if len(stored) != expected_head:
            raise HeadMoved(len(stored))
        self._entries[session] = [*stored, *(bytes(entry) for entry in entries)]
        return len(self._entries[session])

    async def load(self, session: str, after: int = 0) -> list[tuple[int, bytes]]:
        start = max(after, 0)
        return list(enumerate(self._entries.get(session, [])[start:], start=start + 1))

    async def delete(self, session: str) -> None:
        self._entries.pop(session, None)
