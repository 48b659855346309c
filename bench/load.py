"""The load generator of the front's benchmark, in a process of its own: ``python -m bench.load``.

It reads lines ``PORT REQUESTS CONNECTIONS RATE`` from standard input. ``RATE`` 0 sends as fast as answers come back;
otherwise so many a second are begun, whether or not answers come back. Everything is signed before the clock starts.
Each line is answered with a JSON ``Outcome``.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import deque
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

from bench.webhooks import request_bytes

_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


class Outcome(Struct, frozen=True):
    """What a run gave: seconds in all, milliseconds of every request, and how many were not accepted."""

    seconds: float
    milliseconds: list[float]
    refused: int


class _Line(asyncio.Protocol):
    """One kept-alive connection that sends the next request when it is given one."""

    def __init__(self, done: asyncio.Queue[_Line]) -> None:
        self.refused = 0
        self.milliseconds: list[float] = []
        self._done = done
        self._began = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, began: float) -> None:
        self._began = began
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take an answer, which may come in pieces."""
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(_LENGTH.findall(head)[0]):
            return
        self.milliseconds.append((time.perf_counter() - self._began) * 1000)
        self.refused += head[9:12] != b"202"
        self._answer = b""
        self._done.put_nowait(self)


async def run(port: int, requests: int, connections: int, rate: float) -> Outcome:
    waiting = deque(request_bytes(f"thread-{number}") for number in range(requests))
    idle: asyncio.Queue[_Line] = asyncio.Queue()
    lines: list[_Line] = []
    for _ in range(connections):
        _, line = await asyncio.get_running_loop().create_connection(lambda: _Line(idle), "127.0.0.1", port)
        lines.append(line)
        idle.put_nowait(line)
    began = time.perf_counter()
    for number in range(requests):
        due = time.perf_counter()
        if rate:
            due = began + number / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
        line = await idle.get()
        line.send(waiting.popleft(), due)
    for _ in range(connections):
        await idle.get()
    seconds = time.perf_counter() - began
    for line in lines:
        line.transport.close()
    samples = [sample for line in lines for sample in line.milliseconds]
    return Outcome(seconds, samples, sum(line.refused for line in lines))


async def main() -> None:
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        port, requests, connections, rate = line.split()
        outcome = await run(int(port), int(requests), int(connections), float(rate))
        print(msgspec.json.encode(outcome).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
