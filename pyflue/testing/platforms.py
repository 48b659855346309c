"""Fake GitHub and Slack, and a receiver of ``standard`` replies: one real HTTP server that records what it accepts.

    GITHUB_API_URL = {url}/github     comments on issues, pull requests and review threads, and their lists
    SLACK_API_URL  = {url}/slack/api  chat.postMessage, conversations.replies, conversations.history
    reply_url      = {url}/standard   signed POSTs; every delivery is recorded, also those seen before

    GET  /_fake/messages?platform=…   what was accepted, oldest first (``Posted``)
    POST /_fake/script                makes coming calls fail (``Failure``)
    POST /_fake/reset                 forgets everything
    GET  /_fake/health

Run it alone with ``python -m pyflue.testing.platforms --port N``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from datetime import UTC, datetime
from typing import Final, Self

import msgspec
from msgspec import Struct

from pyflue.channels.signatures import check_standard, standard_keys
from pyflue.config import Secret
from pyflue.errors import SignatureError
from pyflue.testing.fake_github import FakeGithub
from pyflue.testing.fake_slack import FakeSlack
from pyflue.testing.http_server import Exchange, HttpServer
from pyflue.testing.posted import Answered, Failure, Posted, Record

STANDARD_SECRET: Final = "whsec_cHlmbHVlLXRlc3Rpbmctc2VjcmV0LTAwMDE="
"""The secret the fake receiver checks replies with, unless told another."""


class _Reply(Struct, frozen=True):
    thread: str
    text: str
    dispatch_id: str = ""
    part: int = 0
    type: str = "reply"


class FakeReceiver:
    """Answers below ``/standard``: an application that receives signed replies and remembers their ids."""

    name: Final = "standard"

    def __init__(self, record: Record, secret: Secret) -> None:
        self._record = record
        self._keys = standard_keys(self.name, secret)

    def writes(self, exchange: Exchange) -> bool:
        return exchange.method == "POST"

    def answer(self, exchange: Exchange, path: str) -> Answered:
        """Verify and record one delivery, whatever the path."""
        if exchange.method != "POST":
            return Answered(405, b"{}")
        now = datetime.now(UTC)
        try:
            key = check_standard(self.name, exchange.headers, exchange.body, self._keys, now)
        except SignatureError as error:
            return Answered(401, msgspec.json.encode({"error": error.cause}))
        try:
            reply = msgspec.json.decode(exchange.body, type=_Reply)
        except (msgspec.DecodeError, UnicodeError):
            return Answered(400, b"{}")
        seen = self._record.knows("standard", key)
        posted = Posted("standard", key, reply.thread, reply.text, key, now.timestamp(), duplicate=seen)
        return Answered(200, msgspec.json.encode({"duplicate": seen}), posted=posted)


class FakePlatforms:
    """All three platforms on one port, for use in a test's own process: ``async with FakePlatforms() as fake``."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, standard_secret: Secret | None = None) -> None:
        self._host = host
        self._port = port
        self._secret = standard_secret or Secret(STANDARD_SECRET)
        self._record = Record()
        self._fakes = self._new_fakes()
        self._server = HttpServer(self._serve)
        self._changed = asyncio.Event()

    def _new_fakes(self) -> dict[str, FakeGithub | FakeSlack | FakeReceiver]:
        fakes = (FakeGithub(self._record), FakeSlack(self._record), FakeReceiver(self._record, self._secret))
        return {fake.name: fake for fake in fakes}

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def github_url(self) -> str:
        return f"{self.url}/github"

    @property
    def slack_url(self) -> str:
        return f"{self.url}/slack/api"

    @property
    def reply_url(self) -> str:
        return f"{self.url}/standard"

    async def __aenter__(self) -> Self:
        self._port = await self._server.start(self._host, self._port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.stop()

    def messages(self, platform: str = "") -> list[Posted]:
        """Return what one platform accepted, or all of them; oldest first."""
        return self._record.messages(platform)

    async def wait_for(self, count: int, platform: str = "") -> list[Posted]:
        """Return the messages once there are ``count`` of them; bound the wait with ``asyncio.timeout``."""
        while len(self.messages(platform)) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.messages(platform)

    def fail(self, failure: Failure) -> None:
        """Make coming calls fail; failures of one platform are used up in the order they were asked for."""
        self._record.fail(failure)

    def reset(self) -> None:
        """Forget messages and failures."""
        self._record.clear()
        self._fakes = self._new_fakes()

    async def _serve(self, exchange: Exchange) -> None:
        _, _, rest = exchange.path.partition("/")
        name, _, path = rest.partition("/")
        if name == "_fake":
            self._control(exchange, path)
            return
        fake = self._fakes.get(name)
        if fake is None:
            exchange.respond(404, b"{}")
            return
        failure = self._record.take_failure(name, "write" if fake.writes(exchange) else "read")
        if failure and failure.when == "before":
            await _break(exchange, failure)
            return
        answered = fake.answer(exchange, f"/{path}")
        if answered.posted:
            self._record.add(answered.posted)
            self._changed.set()
        if failure and failure.when == "during":
            await _break_halfway(exchange, failure, answered)
        elif failure:
            await _break(exchange, failure)
        else:
            exchange.respond(answered.status, answered.body, answered.headers)

    def _control(self, exchange: Exchange, path: str) -> None:
        """Answer the endpoints by which another process reads and scripts the fakes."""
        if (exchange.method, path) == ("GET", "messages"):
            messages = self.messages(exchange.query.get("platform", ""))
            exchange.respond(200, msgspec.json.encode(messages))
        elif (exchange.method, path) == ("POST", "script"):
            try:
                self.fail(msgspec.json.decode(exchange.body, type=Failure))
            except (msgspec.DecodeError, UnicodeError) as error:
                exchange.respond(400, msgspec.json.encode({"error": str(error)}))
            else:
                exchange.respond(200, b"{}")
        elif (exchange.method, path) == ("POST", "reset"):
            self.reset()
            exchange.respond(200, b"{}")
        elif (exchange.method, path) == ("GET", "health"):
            exchange.respond(200, b"{}")
        else:
            exchange.respond(404, b"{}")


async def _break(exchange: Exchange, failure: Failure) -> None:
    if failure.how == "status":
        exchange.respond(failure.status, failure.body.encode(), failure.all_headers)
    elif failure.how == "drop":
        exchange.reset()
    else:
        await asyncio.Event().wait()  # until the client gives up, which cancels this task


async def _break_halfway(exchange: Exchange, failure: Failure, answered: Answered) -> None:
    exchange.respond_half(answered.status, answered.body, answered.headers)
    if failure.how == "drop":
        exchange.hang_up()
    else:
        await asyncio.Event().wait()


async def serve(fake: FakePlatforms) -> None:
    """Run the fakes until SIGTERM or SIGINT; print their address when they listen."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with fake:
        print(f"fake platforms listening on {fake.url}", flush=True)
        await stop.wait()


def main() -> None:
    """Run the fakes as a process of their own."""
    parser = argparse.ArgumentParser(prog="python -m pyflue.testing.platforms", description="Fake chat platforms.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one, which is printed")
    parser.add_argument("--standard-secret", default=STANDARD_SECRET, help="what standard replies are signed with")
    options = parser.parse_args()
    asyncio.run(
        serve(FakePlatforms(host=options.host, port=options.port, standard_secret=Secret(options.standard_secret)))
    )


if __name__ == "__main__":
    main()
