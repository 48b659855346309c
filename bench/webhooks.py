"""Sending signed ``standard`` webhooks over kept-alive connections, cheaply."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pyflue.channels.signed import SampleMessage, signed_delivery
from pyflue.config import Secret

SECRET = "whsec_YmVuY2htYXJrLXNlY3JldC1vZi10aGlydHktdHdvLWJ5dGVz"
BODY = "Where is order 17? It was to arrive on Tuesday, and the tracking page has not changed since then."


def request_bytes(thread: str, text: str = BODY) -> bytes:
    """Write one delivery as the bytes of an HTTP request, signed now, under an id of its own."""
    message = SampleMessage(text, f"msg_{secrets.token_hex(12)}", thread)
    delivery = signed_delivery("standard", Secret(SECRET), message, datetime.now(UTC))
    head = [f"POST {delivery.path} HTTP/1.1", "host: bench", f"content-length: {len(delivery.body)}"]
    head += [f"{name}: {value}" for name, value in delivery.headers.items()]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + delivery.body


class Connection:
    """One kept-alive connection to the front; one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, request: bytes) -> int:
        """Send a request and return the status, once the whole answer is read."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        start = lower.index(b"content-length:") + 15
        await self._reader.readexactly(int(lower[start : lower.index(b"\r", start)]))
        return int(head[9:12])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class Front:
    """A few connections to one front, shared by many senders."""

    def __init__(self, port: int, connections: int) -> None:
        self._connections = [Connection(port) for _ in range(connections)]
        self._idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in self._connections:
            self._idle.put_nowait(connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()

    async def send(self, thread: str, text: str = BODY) -> None:
        """Deliver a message; raises RuntimeError unless it was accepted."""
        connection = await self._idle.get()
        try:
            status = await connection.post(request_bytes(thread, text))
        finally:
            self._idle.put_nowait(connection)
        if status != 202:
            raise RuntimeError(f"the front answered {status}")
