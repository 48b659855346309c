"""A small HTTP/1.1 server for fakes: it can do what a well-behaved server cannot, such as breaking off a body."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast
from urllib.parse import parse_qsl, urlsplit

import httptools

_REASONS: Final = {200: b"OK", 400: b"Bad Request", 404: b"Not Found"}


class Exchange:
    """One request, and the means to answer it. Header names are lower case."""

    def __init__(self, transport: asyncio.Transport, method: str, target: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.query: dict[str, str] = dict(parse_qsl(parts.query))
        self.headers = headers
        self.body = b""
        self._transport = transport

    def respond(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole response; JSON unless ``headers`` say otherwise."""
        fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        self._transport.write(_head(status, fields) + body)

    def respond_half(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Announce a whole response and send half of its body."""
        fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        self._transport.write(_head(status, fields) + body[: len(body) // 2])

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin a chunked response."""
        self._transport.write(_head(status, {"transfer-encoding": "chunked", **headers}))

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a chunk of a response begun with ``start``; with ``last`` also the end of the body."""
        framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self._transport.write(framed + b"0\r\n\r\n" if last else framed)

    def hang_up(self) -> None:
        """Close the connection where it stands: what was written arrives, the rest of the body does not."""
        self._transport.close()

    def reset(self) -> None:
        """Break the connection: the client's next read fails."""
        connection = cast("socket.socket | None", self._transport.get_extra_info("socket"))
        if connection is not None:  # a linger time of zero makes the close a TCP reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


Handler = Callable[[Exchange], Awaitable[None]]


class HttpServer:
    """Serves ``handler``, one task per request; a client that goes away cancels its task."""

    def __init__(self, handler: Handler) -> None:
        self.accepted = 0
        self._handler = handler
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen, on a free port if ``port`` is 0; return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    def _connection(self) -> _Connection:
        self.accepted += 1
        return _Connection(self._handler, self._connections)

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is None:
            return
        self._server.close()
        tasks = [connection.drop() for connection in list(self._connections)]
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        await self._server.wait_closed()
        self._server = None


class _Connection(asyncio.Protocol):
    """The parser's callbacks and the connection's, in one object, as ``httptools`` wants it."""

    def __init__(self, handler: Handler, connections: set[_Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[str, str] = {}
        self._target = b""
        self._body: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def drop(self) -> asyncio.Task[None] | None:
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode()
        exchange = Exchange(self._transport, method, self._target.decode(), self._headers)
        exchange.body = b"".join(self._body)
        self._headers, self._target, self._body = {}, b"", []
        self._task = asyncio.get_running_loop().create_task(self._serve(exchange, self._task))

    async def _serve(self, exchange: Exchange, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():  # a pipelined request waits for its turn
            await asyncio.wait([before])
        await self._handler(exchange)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"Error"))]
    lines.extend(f"{name}: {value}".encode("latin-1") for name, value in headers.items())
    return b"\r\n".join(lines) + b"\r\n\r\n"
