"""An operator at a keyboard: a project with real work in it, and the real command run as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from msgspec import Raw

from pyflue.config import Project, load_project
from pyflue.dispatches import Dispatch, DispatchInput, ReplyAddress, SessionAddress, WorkerRow
from pyflue.ids import DispatchId, Ids, WorkerId
from pyflue.runtime import Runtime, open_runtime
from pyflue.testing.platforms import STANDARD_SECRET

LEASE = timedelta(seconds=30)
ECHO = """\
from pyflue import create_agent, tool


@tool
async def find_order(order: str) -> str:
    "Say where an order is."
    return f"order {order} has left"


default = create_agent(lambda: {"model": "offline/echo", "instructions": "Repeat.", "tools": [find_order]})
"""
BROKEN_INITIALIZER = """\
from pyflue import create_agent


def configure():
    raise RuntimeError("no luck today")


default = create_agent(configure, limits={"max_attempts": 1})
"""
SETTINGS = """\
[channels.standard]
agent = "triage"
reply_url = "{reply_url}"

[web]
port = 9
"""


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class Desk:
    """A project's folder and its environment. Commands run there; ``runtime`` is another process's view of the same."""

    def __init__(self, root: Path, env: Mapping[str, str]) -> None:
        self.root = root
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYFLUE_", "ANTHROPIC_"))
        }
        self.env = {**inherited, "STANDARD_WEBHOOK_SECRET": STANDARD_SECRET, **env}

    @property
    def python(self) -> str:
        return sys.executable

    @property
    def project(self) -> Project:
        return load_project(self.root / "pyflue.toml", self.env)

    @asynccontextmanager
    async def runtime(self) -> AsyncIterator[Runtime]:
        async with open_runtime(self.project) as runtime:
            yield runtime

    async def run(self, *words: str, env: Mapping[str, str] | None = None) -> Done:
        """Run ``pyflue WORDS`` to its end."""
        process = await self.start(*words, env=env)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def start(self, *words: str, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pyflue.cli",
            *words,
            cwd=self.root,
            env={**self.env, **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=hears_interrupts,
        )


def hears_interrupts() -> None:
    """Hear Ctrl-C as under a terminal; where the suite runs in the background, its shell has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def make_desk(root: Path, env: Mapping[str, str] | None = None, reply_url: str = "http://127.0.0.1:9/") -> Desk:
    """Write a project with a working agent, ``triage``, and one that cannot be built, ``moody``."""
    (root / "agents").mkdir(parents=True, exist_ok=True)
    (root / "agents" / "triage.py").write_text(ECHO)
    (root / "agents" / "moody.py").write_text(BROKEN_INITIALIZER)
    (root / "pyflue.toml").write_text(SETTINGS.format(reply_url=reply_url))
    return Desk(root, env or {})


def address(thread: str = "thread-1", agent: str = "triage") -> SessionAddress:
    return SessionAddress(agent, thread)


async def admit(
    runtime: Runtime, text: str = "hello", where: SessionAddress | None = None, **fields: Any
) -> DispatchId:
    """Admit work that nobody has started yet."""
    receipt = await runtime.admitter.dispatch(where or address(), DispatchInput(text, **fields))
    return receipt.dispatch_id


async def settle(runtime: Runtime, dispatch_id: DispatchId) -> Dispatch:
    """Work a dispatch to its outcome in this process."""
    row = await runtime.store.views.dispatch(dispatch_id)
    assert row is not None
    session = await runtime.store.views.session(row.session_id)
    assert session is not None
    return await runtime.settled(dispatch_id, session.address)


async def complete(
    runtime: Runtime, texts: Sequence[str] = ("hello",), where: SessionAddress | None = None
) -> list[str]:
    """Admit each text and work it; return the ids."""
    ids: list[str] = []
    for text in texts:
        dispatch_id = await admit(runtime, text, where)
        assert (await settle(runtime, dispatch_id)).status == "completed"
        ids.append(dispatch_id)
    return ids


def to_standard(url: str = "http://127.0.0.1:9/") -> ReplyAddress:
    """Where the ``standard`` channel answers; by default nobody listens there."""
    return ReplyAddress("standard", Raw(json.dumps({"thread": "thread-1", "url": url}).encode()))


async def a_worker(runtime: Runtime, *agents: str, lease: timedelta = LEASE) -> WorkerId:
    """Register a worker process that does nothing but live."""
    ids = Ids()
    now = runtime.clock.now()
    worker = WorkerRow(ids.worker(), "host-b", 4711, "live", agents, now, now, now + lease, ids.liveness_key())
    await runtime.store.fleet.register(worker, lease)
    return worker.id
