"""A deployment of real processes that is killed and comes back, as under a supervisor, with fakes around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal

from pyflue.dispatches import ReplyMode
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import Store
from pyflue.testing.crash import Crashes
from pyflue.testing.platforms import STANDARD_SECRET
from tests.flow.nursery import Child, Nursery
from tests.flow.project import write_project
from tests.services import free_port
from tests.waiting import until

Kind = Literal["embedded", "pool"]
ROLES: dict[Kind, dict[str, tuple[str, ...]]] = {
    "embedded": {"dev": ("dev", "--no-reload", "--host", "127.0.0.1", "--port", "{port}")},
    "pool": {
        "web": ("web", "--host", "127.0.0.1", "--port", "{port}"),
        "worker-1": ("worker",),
        "worker-2": ("worker",),
    },
}
SECRETS = {
    "ANTHROPIC_API_KEY": "sk-ant-fake",
    "STANDARD_WEBHOOK_SECRET": STANDARD_SECRET,
    "GITHUB_WEBHOOK_SECRET": "github-secret",
    "GITHUB_TOKEN": "github-token",
    "SLACK_SIGNING_SECRET": "slack-secret",
    "SLACK_BOT_TOKEN": "xoxb-token",
}
PATIENCE = 20.0  # seconds for a process to come up on a loaded machine


class Fakes:
    """The fake model API and the fake platforms, as processes that no fault of the deployment touches."""

    def __init__(self, nursery: Nursery, folder: Path, model_delay: int) -> None:
        model, platforms = free_port(), free_port()
        self.model_url = f"http://127.0.0.1:{model}"
        self.platforms_url = f"http://127.0.0.1:{platforms}"
        env = {"PATH": os.environ.get("PATH", "")}
        words = {
            "anthropic": ["--port", str(model), "--delay", str(model_delay)],
            "platforms": ["--port", str(platforms)],
        }
        self._children = [
            nursery.start(f"pyflue.testing.{name}", given, cwd=folder, env=env, log=folder / f"{name}.log")
            for name, given in words.items()
        ]
        for url in (f"{self.model_url}/_fake/stats", f"{self.platforms_url}/_fake/health"):
            wait_for_answer(url)

    def close(self) -> None:
        for child in self._children:
            child.send(signal.SIGKILL)


class Deployment:
    """The processes of one deployment. Dead ones are started again by ``supervised``."""

    def __init__(self, nursery: Nursery, root: Path, kind: Kind, fakes: Fakes, env: Mapping[str, str]) -> None:
        self.kind = kind
        self.fakes = fakes
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = env["PYFLUE_DATABASE_URL"]
        self.effects = root / "effects.jsonl"
        self.conversations = root / "conversations.sqlite3"
        (root / "points").mkdir()
        self.crashes = Crashes(root / "points")
        self.children: dict[str, Child] = {}
        self.starts: list[tuple[str, int]] = []
        self._nursery = nursery
        self._root = root
        self._env = {
            "PATH": os.environ.get("PATH", ""),
            **SECRETS,
            "ANTHROPIC_BASE_URL": fakes.model_url,
            "GITHUB_API_URL": f"{fakes.platforms_url}/github",
            "SLACK_API_URL": f"{fakes.platforms_url}/slack/api",
            "PYFLUE_LOG_FORMAT": "json",
            "CRASH_POINTS": str(root / "points"),
            "EFFECTS": str(self.effects),
            "CONVERSATIONS": str(self.conversations),
            **env,
        }

    @property
    def roles(self) -> list[str]:
        return list(ROLES[self.kind])

    @property
    def workers(self) -> list[str]:
        """Return the roles that run turns."""
        return [role for role in self.roles if role != "web"]

    def start(self, role: str) -> None:
        """Start a process; it may die at any armed point."""
        words = [word.format(port=self.port) for word in ROLES[self.kind][role]]
        self.children[role] = self._nursery.start(
            "pyflue.testing.process",
            ["--points", self._env["CRASH_POINTS"], *words],
            cwd=self._root,
            env=self._env,
            log=self._root / f"{role}.log",
        )

    def start_all(self) -> None:
        """Start every process and wait until the deployment answers."""
        for role in self.roles:
            self.start(role)
        wait_for_answer(f"{self.url}/health/live")

    def close(self) -> None:
        for child in self.children.values():
            child.send(signal.SIGKILL)
        for child in self.children.values():
            child.wait()

    def signal(self, role: str, number: signal.Signals) -> None:
        self.children[role].send(number)

    def logs(self) -> str:
        """Return the end of every log, for a failing test."""
        return "\n".join(f"--- {role}\n{child.text[-3000:]}" for role, child in self.children.items())

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Start processes again as they end, for the length of the block."""
        keeping = asyncio.create_task(self._keep_up())
        try:
            yield
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    async def _keep_up(self) -> None:
        while True:
            for role, child in list(self.children.items()):
                if (code := child.returncode) is not None:
                    self.starts.append((role, code))
                    self.start(role)
            await asyncio.sleep(0.02)

    async def all_up(self) -> None:
        """Return once every process runs and the front answers."""

        async def up() -> bool:
            running = all(child.returncode is None for child in self.children.values())
            return running and await asyncio.to_thread(_answers, f"{self.url}/health/live")

        await until(up, PATIENCE)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """Open the deployment's store for reading."""
        store = open_store(self.database_url, pool=2)
        await store.open()
        try:
            yield store
        finally:
            await store.close()


@contextmanager
def deployed(
    nursery: Nursery,
    root: Path,
    kind: Kind,
    env: Mapping[str, str],
    *,
    lease: float = 3.0,
    model_delay: int = 0,
    reply: ReplyMode = "auto",
) -> Iterator[Deployment]:
    """Deploy into ``root`` for the block: fakes, schema, processes. The model answers after so many milliseconds."""
    fakes = Fakes(nursery, root, model_delay)
    write_project(root, f"{fakes.platforms_url}/standard", lease, reply)
    deployment = Deployment(nursery, root, kind, fakes, env)
    try:
        asyncio.run(_migrate(deployment.database_url))
        deployment.start_all()
        yield deployment
    finally:
        deployment.close()
        fakes.close()


async def _migrate(url: str) -> None:
    store = open_store(url)
    await store.migrate()
    await store.close()


def wait_for_answer(url: str) -> None:
    """Block until the address answers a GET with 200."""
    give_up = time.monotonic() + PATIENCE
    while not _answers(url):
        assert time.monotonic() < give_up, f"{url} does not answer"
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
