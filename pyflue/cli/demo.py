"""``pyflue demo``: the whole road on this machine, with no key and no service.

A project in a temporary folder is served by a real `pyflue dev` process on SQLite. This process plays the
application that sends signed webhooks and receives signed replies; it also kills the server in the middle of a
tool call, which is the point of PyFlue.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx2
import msgspec
import typer
from msgspec import Struct

from pyflue.channels.signed import SampleMessage, SignedDelivery, signed_delivery
from pyflue.clock import SystemClock
from pyflue.config import Secret
from pyflue.errors import PyFlueError
from pyflue.events import StoredEvent
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import Store
from pyflue.testing.platforms import STANDARD_SECRET, FakePlatforms
from pyflue.testing.posted import Posted

AGENT: Final = '''\
"""An agent of the demo: no network, no key. The offline model calls the tools named in the message."""

import asyncio

from pyflue import create_agent, tool


@tool
async def find_order(order: str) -> str:
    """Say where an order is."""
    return f"order {order} left the warehouse this morning"


@tool(retry="safe")
async def count_stock(item: str) -> str:
    """Count what is in stock; takes a while."""
    await asyncio.sleep(3)
    return f"42 pieces of {item}"


default = create_agent(
    lambda: {
        "model": "offline/echo",
        "instructions": "You help the customers of a small shop.",
        "tools": [find_order, count_stock],
    }
)
'''
PATIENCE: Final = 40.0  # seconds for any one step; the slowest waits for a killed process to be taken for dead


class DemoFailed(PyFlueError):
    """A step of the demo did not happen in time."""

    code = "demo_failed"

    def __init__(self, step: str) -> None:
        super().__init__(f"The demo got stuck: {step}.", fix="Run it again; if it stays, please report it.")


class _Receipt(Struct):
    status: str
    dispatch_id: str
    accepted_at: str
    duplicate: bool


class _Demo:
    """What the demo's steps share."""

    def __init__(self, folder: Path, url: str, store: Store, client: httpx2.AsyncClient, fake: FakePlatforms) -> None:
        self.folder = folder
        self.url = url
        self.store = store
        self.client = client
        self.fake = fake
        self.clock = SystemClock()

    def sign(self, text: str, delivery: str) -> SignedDelivery:
        sample = SampleMessage(text, delivery, thread="order-17", sender="ada")
        return signed_delivery("standard", Secret(STANDARD_SECRET), sample, self.clock.now())

    async def post(self, delivery: SignedDelivery) -> httpx2.Response:
        return await self.client.post(self.url + delivery.path, headers=delivery.headers, content=delivery.body)

    async def accepted(self, text: str, delivery: str) -> _Receipt:
        answer = await self.post(self.sign(text, delivery))
        if answer.status_code != 202:
            raise DemoFailed(f"the front answered {answer.status_code}")
        return msgspec.json.decode(answer.content, type=_Receipt)


def command() -> None:
    """Run the main job end to end on the embedded default, print each step, and exit with a summary."""
    clock = SystemClock()
    began = clock.monotonic()
    with tempfile.TemporaryDirectory(prefix="pyflue-demo-") as folder:
        counts = asyncio.run(_demo(Path(folder)))
    seconds = clock.monotonic() - began
    _say("")
    _say(
        f"Done in {seconds:.1f} s: {counts} messages accepted, {counts} answered, each exactly once; "
        "1 duplicate and 1 forgery turned away; 1 process killed, nothing lost."
    )


async def _demo(folder: Path) -> int:
    port = _free_port()
    async with FakePlatforms() as fake, httpx2.AsyncClient(timeout=10) as client:
        _write_project(folder, fake.reply_url)
        database = f"sqlite:///{folder}/.pyflue/pyflue.sqlite3"
        _step("a project: agents/assistant.py and pyflue.toml, on SQLite, in one process")
        async with _server(folder, port, client):
            store = open_store(database)
            await store.open()
            demo = _Demo(folder, f"http://127.0.0.1:{port}", store, client, fake)
            await _first_message(demo)
            second = await _killed_message(demo)
        try:
            async with _server(folder, port, client):
                await _finish_after_restart(demo, second)
        finally:
            await store.close()
        return 2


async def _first_message(demo: _Demo) -> None:
    _step("receive, verify, admit: a signed webhook arrives")
    text = 'Where is my order? [tool:find_order {"order": "17"}]'
    delivery = demo.sign(text, "msg_demo_1")
    receipt = msgspec.json.decode((await demo.post(delivery)).content, type=_Receipt)
    _say(f"202 accepted {receipt.dispatch_id}  (durable before this answer was sent)")
    again = msgspec.json.decode((await demo.post(delivery)).content, type=_Receipt)
    _say(f"202 the same delivery again: same receipt {again.dispatch_id}, duplicate={str(again.duplicate).lower()}")
    forged = SignedDelivery(delivery.path, delivery.headers, delivery.body.replace(b"17", b"18"))
    _say(f"{(await demo.post(forged)).status_code} a forged body: refused")
    _step("ring, lease, turns, settle: a worker takes the conversation")
    await _show_events(demo, receipt.dispatch_id, until="dispatch.settled")
    _step("deliver: the reply leaves through the outbox, signed")
    _show_reply(await _reply(demo, 1))


async def _killed_message(demo: _Demo) -> _Receipt:
    _step("a second message; its tool takes a while …")
    receipt = await demo.accepted('And the stock? [tool:count_stock {"item": "lamps"}]', "msg_demo_2")
    _say(f"202 accepted {receipt.dispatch_id}")
    await _show_events(demo, receipt.dispatch_id, until="turn.answered")
    _step("… and in the middle of it the process is killed (SIGKILL)")
    return receipt


async def _finish_after_restart(demo: _Demo, receipt: _Receipt) -> None:
    _step("a new process starts, finds the work by itself and goes on where it stopped")
    seen = await demo.store.events.read(receipt.dispatch_id)
    await _show_events(demo, receipt.dispatch_id, until="dispatch.settled", after=seen[-1].seq)
    _show_reply(await _reply(demo, 2))


async def _show_events(demo: _Demo, dispatch_id: str, *, until: str, after: int = 0) -> None:
    async def watch() -> None:
        seen = after
        while True:
            for event in await demo.store.events.read(dispatch_id, seen):
                seen = event.seq
                _say(f"{event.type:<22} {_summary(event)}")
                if event.type == until:
                    return
            await asyncio.sleep(0.02)

    await _in_time(watch(), f"no {until} event of {dispatch_id}")


def _summary(event: StoredEvent) -> str:
    """Pick the few fields of an event that tell its story."""
    shown = ("attempt", "turn", "stop_reason", "tool_calls", "name", "outcome", "preview", "reason")
    data = msgspec.json.decode(event.data, type=dict[str, object])
    return textwrap.shorten("  ".join(f"{key}={data[key]}" for key in shown if data.get(key)), 90)


async def _reply(demo: _Demo, count: int) -> Posted:
    posted: list[Posted] = []

    async def wait() -> None:
        posted.extend(await demo.fake.wait_for(count, "standard"))

    await _in_time(wait(), "no reply arrived")
    return posted[count - 1]


def _show_reply(posted: Posted) -> None:
    _say(f"webhook-id {posted.key}")
    _say("reply      " + textwrap.shorten(posted.text.replace("\n", " / "), 100))


async def _in_time(step: Coroutine[None, None, None], stuck: str) -> None:
    try:
        await asyncio.wait_for(step, PATIENCE)
    except TimeoutError as error:
        raise DemoFailed(stuck) from error


@asynccontextmanager
async def _server(folder: Path, port: int, client: httpx2.AsyncClient) -> AsyncGenerator[None]:
    """Run `pyflue dev` as a process of its own, and kill it with SIGKILL at the end of the block."""
    words = [sys.executable, "-m", "pyflue.cli", "dev", "--no-reload", "--port", str(port)]
    log = (folder / "server.log").open("ab")
    environment = {"STANDARD_WEBHOOK_SECRET": STANDARD_SECRET}  # nothing of this machine's own settings
    child = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220 - one, at once
    try:
        await _in_time(_ready(client, port, child, folder), "the server did not start")
        yield
    finally:
        child.kill()
        child.wait()
        log.close()


async def _ready(client: httpx2.AsyncClient, port: int, child: subprocess.Popen[bytes], folder: Path) -> None:
    while True:
        if child.poll() is not None:
            said = (folder / "server.log").read_text(errors="replace")[-2_000:]
            raise DemoFailed(f"the server ended at once: {said}")
        try:
            if (await client.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        await asyncio.sleep(0.05)


def _write_project(folder: Path, reply_url: str) -> None:
    (folder / "agents").mkdir()
    (folder / "agents" / "assistant.py").write_text(AGENT, "utf-8")
    settings = f'[channels.standard]\nagent = "assistant"\nreply_url = "{reply_url}"\n'
    (folder / "pyflue.toml").write_text(settings, "utf-8")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _step(text: str) -> None:
    typer.echo(f"\n▸ {text}")


def _say(text: str) -> None:
    typer.echo(f"    {text}" if text else "")
