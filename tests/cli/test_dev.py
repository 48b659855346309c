"""``pyflue dev``: one process, started again when a file changes."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

from tests.cli.operating import Desk
from tests.services import free_port


class Printed:
    """What a running command has printed, output and errors together."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.lines: list[str] = []
        self._grown = asyncio.Event()
        self._reading = [asyncio.create_task(self._read(stream)) for stream in (process.stdout, process.stderr)]

    async def until(self, condition: Callable[[str], bool]) -> None:
        async with asyncio.timeout(40):
            while not condition("\n".join(self.lines)):
                self._grown.clear()
                await self._grown.wait()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.lines.append(line.decode().rstrip())
            self._grown.set()


async def test_a_changed_file_starts_it_again_and_a_broken_one_is_told_of(desk: Desk) -> None:
    port = free_port()
    process = await desk.start("dev", "--port", str(port))
    printed = Printed(process)
    await printed.until(lambda text: f"PyFlue listens at http://127.0.0.1:{port}" in text)

    (desk.root / "agents" / "triage.py").write_text("this is not Python")

    await printed.until(lambda text: "A file changed" in text and "broken    triage" in text)
    await printed.until(lambda text: text.count("PyFlue listens at") == 2)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        assert await process.wait() == 0


async def test_one_that_cannot_start_says_why_and_waits_for_a_change(desk: Desk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await desk.start("dev", "--port", str(taken.getsockname()[1]))
        printed = Printed(process)
        await printed.until(lambda text: "cannot listen" in text and "It ended; waiting for a file to change." in text)

        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
