"""Reading what the fake model has seen, from outside."""

from __future__ import annotations

import asyncio
import time
from urllib.request import urlopen

import msgspec
from msgspec import Struct


class Seen(Struct, frozen=True):
    """One model call: when it arrived (Unix seconds), and its messages' number."""

    at: float
    text: str
    messages: int


class _Body(Struct):
    messages: list[msgspec.Raw]


class _Received(Struct):
    at: float
    body: _Body


class _Stats(Struct):
    running: int
    hits: dict[str, int]


async def calls(url: str) -> list[Seen]:
    """Return every model call, oldest first."""
    answer = await asyncio.to_thread(_get, f"{url}/_fake/requests")
    received = msgspec.json.decode(answer, type=list[_Received])
    return [Seen(one.at, bytes(one.body.messages[0]).decode(), len(one.body.messages)) for one in received]


async def wait_until_called(url: str, count: int, seconds: float = 30) -> None:
    """Return once the fake has had ``count`` calls in all."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        stats = msgspec.json.decode(await asyncio.to_thread(_get, f"{url}/_fake/stats"), type=_Stats)
        if sum(stats.hits.values()) >= count:
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the model was not called {count} times within {seconds:.0f} s")


def _get(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        return answer.read()
