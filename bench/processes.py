"""The processes a benchmark drives, started as an operator starts them, with their logs in files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

START_WITHIN = 40.0  # seconds; importing the SDK alone takes two on a quiet machine


class Process:
    """A running process. ``log`` holds its standard error."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.pid = process.pid
        self.log = log
        self._process = process

    async def logged(self, event: str) -> dict[str, object]:
        """Wait for the first log line of an event and return it.

        Raises:
            RuntimeError: the process ended first, or the event did not come.
        """
        give_up = time.monotonic() + START_WITHIN
        while time.monotonic() < give_up and self._process.returncode is None:
            for line in self.log.read_text(errors="replace").splitlines():
                if f'"event":"{event}"' in line:
                    return json.loads(line)
            await asyncio.sleep(0.05)
        raise RuntimeError(f"no {event} from process {self.pid}:\n{self.log.read_text(errors='replace')[-2000:]}")

    async def first_line(self) -> str:
        """Read the first line of its standard output."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_WITHIN):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"process {self.pid} ended:\n{self.log.read_text(errors='replace')[-2000:]}")
        return line.decode().strip()

    async def ask(self, request: str) -> str:
        """Write a line to its standard input and return the line it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(request.encode() + b"\n")
        answer = (await self._process.stdout.readline()).decode().strip()
        if not answer:
            raise RuntimeError(f"process {self.pid} ended:\n{self.log.read_text(errors='replace')[-2000:]}")
        return answer

    def kill(self) -> None:
        self._process.kill()

    async def stop(self) -> None:
        """End it in good order, or after ten seconds by force."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running(
    *words: str, log: Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> AsyncGenerator[Process]:
    """Run ``python WORDS`` for the block."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYFLUE_", "ANTHROPIC_"))}
    with log.open("wb") as errors:
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            cwd=cwd,
            env={**inherited, **(env or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=2**24,  # bytes; a line of samples is long
        )
    process = Process(started, log)
    try:
        yield process
    finally:
        await process.stop()
