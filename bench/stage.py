"""The stage of a benchmark: its own database and Redis namespace, the fakes, a front and workers."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.processes import Process, running
from bench.receiver import Receiver
from bench.webhooks import SECRET
from tests.services import forget_namespace, fresh_database, shared_postgres, shared_redis

TOOL_RESULT = " ".join(f"word{number}" for number in range(100))
"""What the tool returns and the final answer repeats: enough for as many text events as the fake is asked for."""

AGENT = f"""\
from pyflue import create_agent, tool


@tool
async def lookup() -> str:
    \"\"\"Look the order up.\"\"\"
    return {TOOL_RESULT!r}


default = create_agent(
    lambda: {{"model": "anthropic/MODEL", "instructions": "You answer questions about orders.", "tools": [lookup]}}
)
"""


class Stage:
    """A project on disk with a database and a Redis namespace, and the processes started on it."""

    def __init__(self, root: Path, dsn: str, redis_url: str, model_url: str, receiver: Receiver) -> None:
        self.root = root
        self.dsn = dsn
        self.receiver = receiver
        self.model_url = model_url
        self.namespace = f"bench-{secrets.token_hex(4)}"
        self.env: Mapping[str, str] = {
            "PYFLUE_DATABASE_URL": dsn,
            "PYFLUE_REDIS_URL": redis_url,
            "PYFLUE_REDIS_NAMESPACE": self.namespace,
            "PYFLUE_LOG_FORMAT": "json",
            "ANTHROPIC_BASE_URL": model_url,
            "ANTHROPIC_API_KEY": "sk-bench",
            "STANDARD_WEBHOOK_SECRET": SECRET,
        }
        self._stack = AsyncExitStack()
        self._started = 0

    async def start(self, *words: str) -> Process:
        """Run ``pyflue WORDS`` until the stage closes."""
        self._started += 1
        log = self.root / f"{words[0]}-{self._started}.log"
        return await self._stack.enter_async_context(
            running("-m", "pyflue.cli", *words, log=log, cwd=self.root, env=self.env)
        )

    async def web(self) -> tuple[Process, int]:
        """Start a front on a free port; return it and the port once it listens."""
        process = await self.start("web", "--port", "0")
        line = await process.logged("web.started")
        return process, int(str(line["port"]))

    async def worker(self, turns: int = 100) -> Process:
        """Start a worker and return it once it works."""
        process = await self.start("worker", "--turns", str(turns))
        await process.logged("worker.started")
        return process

    async def close(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def open_stage(model: str, *, events: int = 20, delay_ms: int = 0, reply: str = "auto") -> AsyncGenerator[Stage]:
    """Set the stage: schema migrated, fakes listening, no PyFlue process yet."""
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyflue-bench-")))
        dsn = stack.enter_context(fresh_database(stack.enter_context(shared_postgres())))
        redis_url = stack.enter_context(shared_redis())
        fake = await stack.enter_async_context(
            running(
                *("-m", "pyflue.testing.anthropic", "--events", str(events), "--delay", str(delay_ms)),
                log=root / "fake.log",
            )
        )
        model_url = (await fake.first_line()).rsplit(" ", 1)[1]
        receiver = await stack.enter_async_context(Receiver())
        _write_project(root, model, receiver.url, reply)
        stage = Stage(root, dsn, redis_url, model_url, receiver)
        stack.callback(forget_namespace, redis_url, stage.namespace)
        await asyncio.to_thread(_migrate, stage)
        stack.push_async_callback(stage.close)
        yield stage


def _write_project(root: Path, model: str, reply_url: str, reply: str) -> None:
    (root / "agents").mkdir()
    (root / "agents" / "orders.py").write_text(AGENT.replace("MODEL", model))
    (root / "pyflue.toml").write_text(
        f'[channels.standard]\nagent = "orders"\nreply = "{reply}"\nreply_url = "{reply_url}"\n'
    )


def _migrate(stage: Stage) -> None:
    subprocess.run(
        [sys.executable, "-m", "pyflue.cli", "migrate"],
        cwd=stage.root,
        env={**os.environ, **stage.env},
        check=True,
        capture_output=True,
    )
