"""A fake Anthropic Messages API: a real HTTP server, told what to do by model names or scripts.

In a test: ``async with FakeAnthropic() as fake``, then point ``base_url`` at ``fake.url``. As a process of its own:
``python -m pyflue.testing.anthropic --port 9999``, and ``ANTHROPIC_BASE_URL=http://127.0.0.1:9999``. What it can do
is listed in ``anthropic_replies.py``. Any key is accepted, none is a 401. Besides ``/v1/messages`` and
``/v1/messages/count_tokens`` it answers:

- ``POST /_fake/script`` with a ``Script``: what to reply next; ``POST /_fake/reset``: forget scripts, requests, hits
- ``GET /_fake/requests?model=…``: every request received, with bodies; ``GET /_fake/stats``: hits, running, peak
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections import Counter, defaultdict, deque
from types import TracebackType
from typing import Final, Literal, Self

import msgspec
from msgspec import Raw, Struct

from pyflue.messages import AssistantMessage, Message, TextPart, ToolResultPart, ToolSpec, ToolUsePart, UserMessage
from pyflue.models.offline import OfflineModel
from pyflue.models.protocol import ModelRequest
from pyflue.testing.anthropic_replies import (
    DEFAULT_EVENTS,
    ERROR_TYPES,
    Asked,
    FakeCall,
    Rendering,
    Reply,
    Script,
    answer_text,
    error_body,
    error_event,
    reply_by_name,
)
from pyflue.testing.http_server import Exchange, HttpServer

_SECRET_HEADERS: Final = ("x-api-key", "authorization", "cookie")
_KEPT_REQUESTS: Final = 10_000


class Received(Struct, omit_defaults=True):
    """One request as it arrived, and how it ended. Instants are Unix seconds; ``headers`` hold no secrets.

    ``running`` counts the calls under way when it came, itself included. ``ended`` is ``disconnected`` when the client
    went away before the answer was complete.
    """

    number: int
    path: str
    model: str
    headers: dict[str, str]
    body: Raw
    at: float
    running: int
    status: int = 0
    ended: Literal["", "completed", "broken", "disconnected"] = ""
    ended_at: float = 0.0

    @property
    def messages(self) -> list[Raw]:
        """Return the request's messages as raw JSON."""
        return msgspec.json.decode(self.body, type=_Call).messages


class _Call(Struct, frozen=True):
    """What we read of a request body; the rest may be anything."""

    model: str = ""
    messages: list[Raw] = []
    tools: list[Raw] = []
    stream: bool = False


class _LooseBlock(Struct, frozen=True):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")
    tool_use_id: str = ""
    content: Raw = Raw(b'""')
    is_error: bool = False


class _LooseMessage(Struct, frozen=True):
    """A message as any client may write it: content as text or as blocks."""

    role: str
    content: str | list[_LooseBlock]


class FakeAnthropic:
    """The fake, in this process. ``delay_ms`` and ``events`` are the defaults of answers chosen by model name."""

    def __init__(
        self, *, port: int = 0, host: str = "127.0.0.1", delay_ms: int = 0, events: int = DEFAULT_EVENTS
    ) -> None:
        self.requests: deque[Received] = deque(maxlen=_KEPT_REQUESTS)
        self.hits: Counter[str] = Counter()
        self.running = 0
        self.peak = 0
        self.url = ""
        self._host = host
        self._port = port
        self._delay_ms = delay_ms
        self._events = events
        self._scripts: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._directives = OfflineModel()
        self._changed = asyncio.Event()
        self._prefix = os.urandom(6).hex()  # ids stay unique over restarts of the fake
        self._server = HttpServer(self._serve)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def connections(self) -> int:
        """Return how many connections were accepted so far."""
        return self._server.accepted

    async def start(self) -> None:
        """Listen; ``url`` is set from then on."""
        self.url = f"http://{self._host}:{await self._server.start(self._host, self._port)}"

    async def stop(self) -> None:
        """Drop all connections and stop listening."""
        await self._server.stop()

    def script(self, *replies: Reply, model: str = "*") -> None:
        """Reply to the next requests for ``model`` (``*``: any) with these, in order, before the model's name decides."""
        self._scripts[model].extend(replies)

    def reset(self) -> None:
        """Forget scripts, requests and hits; calls under way go on."""
        self._scripts.clear()
        self.requests.clear()
        self.hits.clear()
        self.peak = self.running

    async def wait_for_requests(self, count: int, *, timeout: float = 10.0) -> None:
        """Return once ``count`` messages requests were received since the last reset.

        Raises:
            TimeoutError: they did not come within ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            while self.hits.total() < count:
                await self._next_change()

    async def wait_until_idle(self, *, timeout: float = 10.0) -> None:
        """Return once no call is under way.

        Raises:
            TimeoutError: one still is, after ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            while self.running:
                await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _serve(self, exchange: Exchange) -> None:
        match exchange.method, exchange.path:
            case "POST", "/v1/messages":
                await self._messages(exchange)
            case "POST", "/v1/messages/count_tokens":
                exchange.respond(200, msgspec.json.encode({"input_tokens": len(exchange.body) // 4}))
            case "POST", "/_fake/script":
                self._take_script(exchange)
            case "POST", "/_fake/reset":
                self.reset()
                exchange.respond(200, b"{}")
            case "GET", "/_fake/requests":
                model = exchange.query.get("model")
                found = [request for request in self.requests if model in (None, request.model)]
                exchange.respond(200, msgspec.json.encode(found))
            case "GET", "/_fake/stats":
                stats = {"hits": self.hits, "running": self.running, "peak": self.peak}
                exchange.respond(200, msgspec.json.encode(stats))
            case _:
                exchange.respond(404, error_body("not_found_error", "The fake has no such address.", "req_fake"))

    def _take_script(self, exchange: Exchange) -> None:
        try:
            script = msgspec.json.decode(exchange.body, type=Script)
        except msgspec.DecodeError as error:
            exchange.respond(400, error_body("invalid_request_error", str(error), "req_fake"))
            return
        self.script(*script.replies, model=script.model)
        exchange.respond(200, b"{}")

    async def _messages(self, exchange: Exchange) -> None:
        try:
            call = msgspec.json.decode(exchange.body, type=_Call)
            messages = [_message(raw) for raw in call.messages]
        except msgspec.DecodeError as error:
            refusal = error_body("invalid_request_error", str(error), "req_fake")
            exchange.respond(400, refusal, {"request-id": "req_fake"})
            return
        received = self._record(exchange, call)
        try:
            reply, text = await self._choose(exchange, call, messages)
            if reply.first_byte_ms:
                await asyncio.sleep(reply.first_byte_ms / 1000)
            received.status = reply.status
            received.ended = await self._answer(
                exchange,
                call,
                reply,
                Rendering(call.model, f"msg_{self._prefix}{received.number:08d}", len(exchange.body) // 4, text),
            )
        except asyncio.CancelledError:
            received.ended = "disconnected"
            raise
        finally:
            received.ended_at = time.time()
            self.running -= 1
            self._changed.set()

    def _record(self, exchange: Exchange, call: _Call) -> Received:
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.hits[call.model] += 1
        headers = {name: value for name, value in exchange.headers.items() if name not in _SECRET_HEADERS}
        received = Received(
            self.hits.total(), exchange.path, call.model, headers, Raw(exchange.body), time.time(), self.running
        )
        self.requests.append(received)
        self._changed.set()
        return received

    async def _choose(self, exchange: Exchange, call: _Call, messages: list[Message]) -> tuple[Reply, str]:
        """Return the reply and its text: without a key a 401, then the script, then what the model's name says."""
        if not any(exchange.headers.get(name) for name in _SECRET_HEADERS):
            return Reply(status=401), "x-api-key header is required"
        asked = _asked(messages, self.hits[call.model])
        for name in (call.model, "*"):
            if self._scripts[name]:
                reply = self._scripts[name].popleft()
                return reply, answer_text(reply, asked)
        if call.model == "fake-directives":
            reply = await self._obey(call, messages)
        else:
            reply = reply_by_name(call.model, asked)
        if reply.events == DEFAULT_EVENTS and not reply.first_byte_ms:
            reply = msgspec.structs.replace(reply, events=self._events, first_byte_ms=self._delay_ms)
        return reply, answer_text(reply, asked)

    async def _obey(self, call: _Call, messages: list[Message]) -> Reply:
        # Which tools there are does not matter here: a directive is obeyed if there are any.
        tools = (ToolSpec("any", "", Raw(b"{}")),) if call.tools else ()
        answer = await self._directives.answer(ModelRequest("echo", "", tuple(messages), tools))
        if answer.tool_calls:
            return Reply(tool_calls=tuple(FakeCall(call.name, call.input) for call in answer.tool_calls))
        return Reply(text=answer.text)

    async def _answer(
        self, exchange: Exchange, call: _Call, reply: Reply, rendering: Rendering
    ) -> Literal["completed", "broken"]:
        request_id = f"req_{rendering.message_id[4:]}"
        headers = {"request-id": request_id, **reply.headers}
        if reply.status != 200:
            error_type = reply.error_type or ERROR_TYPES.get(reply.status, "api_error")
            exchange.respond(reply.status, error_body(error_type, rendering.text, request_id), headers)
            return "completed"
        if not call.stream:
            exchange.respond(200, rendering.whole(reply), headers)
            return "completed"
        exchange.start(
            200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", **headers}
        )
        return await _stream(exchange, reply, rendering.stream(reply))


async def _stream(exchange: Exchange, reply: Reply, events: list[bytes]) -> Literal["completed", "broken"]:
    breaks = reply.cut not in ("", "nostop")
    for chunk in _chunks(reply, events[: len(events) // 2] if breaks else events):
        exchange.write(chunk)
        if reply.event_ms or reply.chunk_bytes:
            await asyncio.sleep(reply.event_ms / 1000)
    match reply.cut:
        case "" | "nostop":
            exchange.write(b"", last=True)
            return "completed"
        case "overloaded":
            exchange.write(error_event("overloaded_error", reply.newline), last=True)
        case "failed":
            exchange.write(error_event("api_error", reply.newline), last=True)
        case "truncate":
            exchange.write(b"", last=True)
        case "hangup":
            exchange.hang_up()
        case "reset":
            await asyncio.sleep(0.05)  # a reset discards what the client has not read yet; let it read the first half
            exchange.reset()
        case "silence":
            await asyncio.Event().wait()
    return "broken"


def _chunks(reply: Reply, events: list[bytes]) -> list[bytes]:
    """Cut the stream into what is written at once: an event each if there are pauses, else everything."""
    if reply.event_ms:
        return events
    whole = b"".join(events)
    size = reply.chunk_bytes or len(whole)
    return [whole[start : start + size] for start in range(0, len(whole), size)] if whole else []


def _message(raw: Raw) -> Message:
    """Read a message into our own shapes, as far as replies depend on it."""
    message = msgspec.json.decode(raw, type=_LooseMessage)
    blocks = [_LooseBlock("text", message.content)] if isinstance(message.content, str) else message.content
    if message.role == "assistant":
        said = [TextPart(block.text) for block in blocks if block.type == "text"]
        called = [ToolUsePart(block.id, block.name, block.input) for block in blocks if block.type == "tool_use"]
        return AssistantMessage((*said, *called))
    heard = [TextPart(block.text) for block in blocks if block.type == "text"]
    results = [
        ToolResultPart(block.tool_use_id, _result_text(block.content), block.is_error)
        for block in blocks
        if block.type == "tool_result"
    ]
    return UserMessage((*results, *heard))


def _result_text(content: Raw) -> str:
    if bytes(content).startswith(b"["):
        return "".join(block.text for block in msgspec.json.decode(content, type=list[_LooseBlock]))
    return msgspec.json.decode(content, type=str)


def _asked(messages: list[Message], hits: int) -> Asked:
    """Collect what came after the last answer; after tool results alone, the text is the one they belong to."""
    texts: list[str] = []
    results: list[str] = []
    answers = 0
    for message in reversed(messages):
        if isinstance(message, AssistantMessage):
            answers += 1
            if texts:
                break
            continue
        texts[:0] = [part.text for part in message.content if isinstance(part, TextPart)]
        if not answers:
            results[:0] = [part.content for part in message.content if isinstance(part, ToolResultPart)]
    return Asked("\n".join(texts), tuple(results), hits)


async def serve(fake: FakeAnthropic) -> None:
    """Run the fake until SIGTERM or SIGINT; print its address when it listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with fake:
        print(f"fake Anthropic API listening on {fake.url}", flush=True)
        await stop.wait()


def main() -> None:
    """Run the fake as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m pyflue.testing.anthropic", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one, which is printed")
    parser.add_argument("--delay", type=int, default=0, metavar="MS", help="milliseconds before the first byte")
    parser.add_argument("--events", type=int, default=DEFAULT_EVENTS, help="text deltas of an answer")
    options = parser.parse_args()
    fake = FakeAnthropic(host=options.host, port=options.port, delay_ms=options.delay, events=options.events)
    if sys.platform == "win32":
        asyncio.run(serve(fake))
    else:
        import uvloop

        uvloop.run(serve(fake))


if __name__ == "__main__":
    main()
