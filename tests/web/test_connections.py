"""One connection cannot hold the front's time, memory or places, whatever it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from pyflue_web import connections

from tests.web.test_front import delivery, running

HEAD = b"POST /webhooks/github HTTP/1.1\r\nhost: x\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"


class Caller:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> bytes:
        """Return an answer whose body is one JSON object."""
        async with asyncio.timeout(10):
            return await self.reader.readuntil(b"}")

    async def rest(self) -> bytes:
        """Return what comes until the other side closes; a reset closes too."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[Caller]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Caller(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_headers_that_never_end_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    async with running() as front, calling(front.port) as caller:
        await caller.say(HEAD)

        assert await caller.rest() == b""


async def test_a_connection_between_two_requests_is_not_late_but_its_next_headers_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    async with running() as front, calling(front.port) as caller:
        for _ in range(2):
            await caller.say(LIVE)
            assert b"200 OK" in await caller.answer()
            await asyncio.sleep(0.3)  # longer than a head may take: nothing is under way

        await caller.say(HEAD)
        assert await caller.rest() == b""


@pytest.mark.parametrize(
    ("request_", "stray"),
    [
        (LIVE, b"\r\n"),
        (b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", b"x"),
        (b"POST /webhooks/nope HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", b"x"),
    ],
)
async def test_bytes_after_an_answer_that_begin_no_request_do_not_keep_the_connection(
    monkeypatch: pytest.MonkeyPatch, request_: bytes, stray: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    async with running() as front, calling(front.port) as caller:
        await caller.say(request_)
        await caller.answer()

        await caller.say(stray)
        assert await caller.rest() == b""


@pytest.mark.parametrize("begin", [HEAD + b"x-a: ", b"POST /webhooks/"])
async def test_headers_without_end_are_refused_before_they_fill_memory(begin: bytes) -> None:
    sent = 0
    async with running() as front, calling(front.port) as caller:
        await caller.say(begin)
        with suppress(ConnectionError):
            while sent < 1_000 * connections.HEAD_BYTES:
                await caller.say(b"a" * 65_536)
                sent += 65_536
                await asyncio.sleep(0)
        await caller.rest()

    assert sent < 1_000 * connections.HEAD_BYTES


async def test_trailers_of_a_body_are_left_out() -> None:
    async with running() as front, calling(front.port) as caller:
        await caller.say(
            HEAD + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2\r\n{}\r\n0\r\nx-hub-signature-256: sha256=00\r\n\r\n"
        )

        assert b"header is missing" in await caller.answer()


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
async def test_an_offer_to_change_the_protocol_is_declined_and_costs_no_body(offer: bytes) -> None:
    async with running() as front, calling(front.port) as caller:
        for number in range(2):
            message = delivery(delivery_id=f"d-{number}")
            fields = [f"{name}: {value}".encode() for name, value in message.headers.items()]
            head = [f"POST {message.path} HTTP/1.1".encode(), b"host: x", b"connection: Upgrade", b"upgrade: " + offer]
            head += [*fields, b"content-length: %d" % len(message.body)]
            request_ = b"\r\n".join(head) + b"\r\n\r\n" + message.body

            await caller.say(request_[:50])
            await caller.say(request_[50:-5])
            await caller.say(request_[-5:])
            assert b"202 Accepted" in await caller.answer()


async def test_many_such_offers_at_once_are_all_declined() -> None:
    offer = LIVE[:-2] + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    async with running() as front, calling(front.port) as caller:
        await caller.say(offer * 700)
        for _ in range(700):
            assert b"200 OK" in await caller.answer()


@pytest.mark.parametrize("target", [b"CONNECT x:443", b"GET ?"])
async def test_a_request_for_no_path_of_ours_is_refused_without_a_failure_of_ours(target: bytes) -> None:
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
    async with running() as front, calling(front.port) as caller:
        await caller.say(target + b" HTTP/1.1\r\nhost: x:443\r\n\r\n")

        assert b" 400 " in await caller.rest()
    assert problems == []


async def test_one_connection_too_many_is_closed_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 2)  # the other one is what saw the front start
    async with running() as front, calling(front.port) as first:
        await first.say(LIVE)
        assert b"200 OK" in await first.answer()

        async with calling(front.port) as second:
            assert await second.rest() == b""

        await first.say(LIVE)
        assert b"200 OK" in await first.answer()
