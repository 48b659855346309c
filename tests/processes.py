"""Starting the production processes as an operator does, and reading their logs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.waiting import until

AGENT = """\
from pyflue import create_agent

default = create_agent(lambda: {"model": "offline/echo", "instructions": "Repeat."})
"""
SETTINGS = """\
[channels.standard]
agent = "triage"
reply = "none"

[worker]
drain = 2.0
"""
STANDARD_SECRET = "whsec_c3RhbmRhcmQtc2VjcmV0LW9mLXR3ZW50eS1mb3VyLWJ5dGVz"


class Process:
    """A running `pyflue` command. ``lines`` are what it logged, as JSON objects."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, object]] = []
        self.text = ""
        self._reading = asyncio.create_task(self._read())

    def logged(self, event: str) -> dict[str, object] | None:
        """Return the first line of this event, or None."""
        return next((line for line in self.lines if line["event"] == event), None)

    async def until_logged(self, event: str, seconds: float = 20) -> dict[str, object]:
        """Wait for an event; fails at once when the process ends."""
        await until(lambda: self.logged(event) or self.process.returncode is not None, seconds)
        found = self.logged(event)
        assert found is not None, f"it ended without {event}:\n{self.text}"
        return found

    async def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 15) -> int:
        """Send a signal and return the exit code; killed if it takes longer than ``seconds``."""
        self.process.send_signal(number)
        async with asyncio.timeout(seconds):
            await self._reading
            return await self.process.wait()

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.text += line.decode(errors="replace")
            if line.startswith(b"{"):
                self.lines.append(json.loads(line))


def make_project(root: Path, settings: str = SETTINGS) -> Path:
    """Write a project with one agent, ``triage``, that repeats what it is told; return its folder."""
    (root / "agents").mkdir(parents=True, exist_ok=True)
    (root / "agents" / "triage.py").write_text(AGENT)
    (root / "pyflue.toml").write_text(settings)
    return root


@asynccontextmanager
async def command(root: Path, *words: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """Run ``pyflue WORDS`` in a project's folder for the block; killed at its end if it still runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYFLUE_")}
    process = Process(
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pyflue.cli",
            *words,
            cwd=root,
            env={**inherited, "STANDARD_WEBHOOK_SECRET": STANDARD_SECRET, "PYFLUE_LOG_FORMAT": "json", **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        yield process
    finally:
        await process.close()
