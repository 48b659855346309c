"""Where replies arrive: a bare HTTP server in the benchmark's own process, so that its cost is not counted."""

from __future__ import annotations

import asyncio
import time
from typing import Self

import msgspec
from msgspec import Struct

from pyflue.testing.http_server import Exchange, HttpServer


class _Reply(Struct):
    thread: str
    text: str


class Receiver:
    """Takes ``standard`` replies and tells who waits for their thread, with the monotonic second they came."""

    def __init__(self) -> None:
        self.url = ""
        self._server = HttpServer(self._serve)
        self._waiting: dict[str, asyncio.Future[float]] = {}

    async def __aenter__(self) -> Self:
        self.url = f"http://127.0.0.1:{await self._server.start()}/replies"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    def expect(self, thread: str) -> asyncio.Future[float]:
        """Return what is resolved with the time at which this thread's next reply arrives."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[thread] = future
        return future

    async def _serve(self, exchange: Exchange) -> None:
        reply = msgspec.json.decode(exchange.body, type=_Reply)
        waiting = self._waiting.pop(reply.thread, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(time.monotonic())
        exchange.respond(200, b"{}")
