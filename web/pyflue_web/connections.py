"""What one connection may cost before any of our code sees a request: time, memory, and a place among the others.

Uvicorn with httptools bounds none of the three by itself: a sender that never ends its headers holds its connection,
and whatever it has sent, for ever.
"""

from __future__ import annotations

import asyncio
import resource
from array import array
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS: Final = 10.0  # for request line and headers, from the connection or the first byte after an answer
HEAD_BYTES: Final = 65_536  # of request line and headers; platforms send about 2 KiB
CONNECTIONS: Final = 4_096  # at once in one process; more are closed unread, and a proxy tries again


class BoundedConnection(HttpToolsProtocol):
    """Closes a connection whose request head is late or too large, and one too many."""

    _head_bytes = 0
    _head_complete = False
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.parser = _StayingParser(self)
        if len(self.connections) > most_connections():
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_complete:
            if self.cycle.response_complete and self._late is None and self.timeout_keep_alive_task is None:
                self._await_head()  # these bytes began no request, but ended uvicorn's wait for the next one
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self.send_400_response("The request's headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_complete = False
        self._head_bytes = 0
        if self._late is None:
            self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # trailers of a chunked body have no meaning here, and no bound either
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_complete = True
        self._head_arrived()
        if not self._offers_another_protocol():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._offers_another_protocol():
            super().on_message_complete()

    def _offers_another_protocol(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def head_without_offer(self) -> bytes:
        """Return the head of this request as if it had not offered to change the protocol."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines.extend(b"%b: %b" % header for header in self.headers if header[0] != b"upgrade")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _await_head(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _StayingParser(httptools.HttpRequestParser):
    """Declines every offer to change the protocol, by reading the request as if there were none.

    Left alone, httptools takes the body of such a request for bytes of the other protocol, and a signed delivery seems
    empty. Java's HTTP client makes the offer (h2c) with every first request that is not encrypted.
    """

    def __init__(self, connection: BoundedConnection) -> None:
        super().__init__(connection)
        self._connection = connection
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def feed_data(self, data: bytes | bytearray | memoryview | array[int]) -> None:
        parser, rest = self, memoryview(data)
        while True:  # a sender may put many such requests in one packet
            try:
                return super(_StayingParser, parser).feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                head = self._connection.head_without_offer()
                rest = rest[offer.args[0] :]
                parser = self._connection.parser = _StayingParser(self._connection)
                super(_StayingParser, parser).feed_data(head)


def most_connections() -> int:
    """Return how many connections this process takes: half the files it may open, so that its database keeps its own."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, files // 2)
