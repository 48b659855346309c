"""The code and the commands of the pages, run as a reader would: in a project of their own, in order."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pyflue.testing.anthropic import FakeAnthropic
from tests.docs.pages import PAGES, ROOT, Block, Command, blocks, commands
from tests.waiting import until

AGENT = 'from pyflue import create_agent\n\ndefault = create_agent(lambda: {"model": "offline/echo"})\n'
SECRET = "whsec_c2VjcmV0LW9mLXR3ZW50eS1mb3VyLWJ5dGVz"
NEEDS_A_SERVER = {"docs/how-to/standard.md"}
PAGES_WITH_CODE = [
    page
    for page in PAGES
    if page.relative_to(ROOT).as_posix() not in NEEDS_A_SERVER
    and any(block.language == "python" for block in blocks(page))
]


class Done(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    errors: str


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return this machine's environment without anything PyFlue would read, and with ``given``."""
    bare = {name: value for name, value in os.environ.items() if not re.match("PYFLUE|ANTHROPIC|GITHUB|SLACK", name)}
    return {**bare, "PYTHONUNBUFFERED": "1", **given}


def words_of(words: list[str]) -> list[str]:
    """Name the programs of this environment: the reader has activated it."""
    program = [sys.executable, "-m", "pyflue.cli"] if words[0] == "pyflue" else [sys.executable]
    return [*program, *words[1:]]


async def run(words: list[str], folder: Path, env: Mapping[str, str]) -> Done:
    """Run a command line that begins with ``pyflue`` or ``python`` to its end."""
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(
        *words_of(words), cwd=folder, env=environment(env), stdout=pipe, stderr=pipe
    )
    output, errors = await started.communicate()
    return Done(started.returncode or 0, output.decode(), errors.decode())


@asynccontextmanager
async def running(words: list[str], folder: Path, env: Mapping[str, str], port: int) -> AsyncIterator[list[str]]:
    """Run a command for the block, from when it listens on ``port``; yields the lines it prints as they come."""
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(*words_of(words), cwd=folder, env=environment(env), stdout=pipe)
    lines: list[str] = []

    async def read() -> None:
        assert started.stdout is not None
        async for line in started.stdout:
            lines.append(line.decode().rstrip("\n"))

    reading = asyncio.create_task(read())
    try:
        await until(lambda: listens(port) or started.returncode is not None, 20)
        assert started.returncode is None, f"{words} ended by itself"
        yield lines
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()
        await reading


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(folder: Path, block: Block) -> Path:
    path = folder / block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, "utf-8")
    return path


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
async def test_the_code_of_a_page_runs(tmp_path: Path, page: Path) -> None:
    """An agent's file answers a prompt, a script runs to its end, tests pass, anything else is executed as it stands.

    Files are written first and run in the order of the page; a file that is shown again is run again as it then is.
    """
    shown = [block for block in blocks(page) if block.language in ("python", "toml")]
    for block in reversed([block for block in shown if block.file]):
        write(tmp_path, block)
    async with FakeAnthropic() as fake:
        env = {"ANTHROPIC_API_KEY": "sk-ant-not-a-key", "ANTHROPIC_BASE_URL": fake.url}
        for block in shown:
            if block.file:
                write(tmp_path, block)
            elif block.language == "python":
                exec(compile(block.text, block.page, "exec"), {})
            if command := command_for(block.file):
                done = await run(command, tmp_path, env)
                assert (done.code, bool(done.output.strip())) == (0, True), f"{block.file}: {done.errors}{done.output}"


def command_for(file: str) -> list[str]:
    """Return what a reader does with a file; nothing for settings and untitled blocks."""
    path = Path(file)
    if path.suffix != ".py":
        return []
    if path.parent.name == "agents":
        return ["pyflue", "run", path.stem, "--prompt", "Where is order 17?"]
    if path.name.startswith("test_"):
        return ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", file]
    return ["python", file]


async def test_the_quickstart_goes_as_it_says(tmp_path: Path) -> None:
    """Its commands up to the real model are typed as written; what they print is what the page shows."""
    page = list(blocks(ROOT / "docs" / "quickstart.md"))
    files = [block for block in page if block.file]
    shown: dict[str, Command] = {}
    for command in (command for block in page if block.language == "console" for command in commands(block)):
        shown.setdefault(" ".join(command.words[:2]), command)
    port = free_port()
    env = {"STANDARD_WEBHOOK_SECRET": SECRET}

    write(tmp_path, files[0])
    asked = await run(shown["pyflue run"].words, tmp_path, env)
    assert asked.output == shown["pyflue run"].output, asked.errors

    settings = write(tmp_path, files[1])
    settings.write_text(f"{settings.read_text()}\n[web]\nport = {port}\n")
    async with running(shown["pyflue dev"].words, tmp_path, env, port) as printed:
        await until(lambda: printed, 10)
        assert printed[0] == shown["pyflue dev"].output.strip().replace("8000", str(port))
        sent = await run(shown["pyflue send"].words, tmp_path, env)
        first, receipt = sent.output.splitlines()
        assert first.startswith(shown["pyflue send"].output.partition("msg_")[0]), sent.errors
        assert set(json.loads(receipt)) == set(json.loads(shown["pyflue send"].output.splitlines()[1]))
        followed = await run(["pyflue", "logs", "-f", json.loads(receipt)["dispatch_id"]], tmp_path, env)

    told = next(block.text for block in page if block.language == "text")
    assert followed.code == 0, followed.errors
    assert event_types(followed.output) == event_types(told)
    assert "left the warehouse this morning" in followed.output


def event_types(text: str) -> list[str]:
    return re.findall(r"^ *\d+  [\d:.]+  ([a-z_.]+)", text, re.MULTILINE)


async def test_the_page_of_the_standard_channel_goes_as_it_says(tmp_path: Path) -> None:
    """The sender and the receiver of the page, with PyFlue between them."""
    files = {block.file: block for block in blocks(ROOT / "docs" / "how-to" / "standard.md") if block.file}
    front, receiver = free_port(), free_port()
    env = {"STANDARD_WEBHOOK_SECRET": SECRET, "FRONT": f"http://127.0.0.1:{front}", "PORT": str(receiver)}
    write(tmp_path, files["ask.py"])
    write(tmp_path, files["receiver.py"])
    settings = write(tmp_path, files["pyflue.toml"])
    settings.write_text(
        settings.read_text().replace("https://app.example/replies", f"http://127.0.0.1:{receiver}/replies")
    )
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "assistant.py").write_text(AGENT)
    server = ["pyflue", "dev", "--no-reload", "--port", str(front)]

    async with (
        running(["python", "receiver.py"], tmp_path, env, receiver) as replies,
        running(server, tmp_path, env, front),
    ):
        first = await run(["python", "ask.py", "msg_1", "Where is my order?"], tmp_path, env)
        again = await run(["python", "ask.py", "msg_1", "Where is my order?"], tmp_path, env)
        other = await run(["python", "ask.py", "msg_1", "Something else"], tmp_path, env)
        await until(lambda: replies, 20)

    assert (first.code, again.code) == (0, 0), first.errors
    status, _, body = again.output.partition(" ")
    assert (status, json.loads(body)["duplicate"]) == ("202", True)
    assert json.loads(first.output.partition(" ")[2])["dispatch_id"] == json.loads(body)["dispatch_id"]
    assert "409" in other.errors
    assert len(replies) == 1
    assert "Where is my order?" in replies[0]
