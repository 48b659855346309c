"""On a terminal: colours where they show, columns that fit, ids that stay whole."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from pyflue.cli.terminal import ago, cells, plain, shortened, span
from tests.cli.operating import Desk, complete

COLUMNS = 80
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


async def on_a_terminal(desk: Desk, *words: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command whose output is a terminal of ``COLUMNS`` columns; return what it printed there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(desk.python, "-m", "pyflue.cli", *words),
        cwd=desk.root,
        env={**desk.env, "TERM": "xterm-256color", "COLUMNS": "", "NO_COLOR": "", **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    printed = await asyncio.to_thread(_read_all, ours)
    await process.wait()
    return printed


def _read_all(terminal: int) -> str:
    read = b""
    while True:
        try:
            some = os.read(terminal, 4096)
        except OSError:  # the last writer has closed its end
            some = b""
        if not some:
            os.close(terminal)
            return read.decode().replace("\r\n", "\n")
        read += some


async def test_a_table_fits_the_terminal_and_keeps_ids_whole(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime, ["日本語 and more " * 40])

    printed = await on_a_terminal(desk, "dispatches", "list")

    lines = ESCAPE.sub("", printed).splitlines()
    assert [cells(line) <= COLUMNS for line in lines] == [True, True]
    assert lines[1].startswith(f"{dispatch_id}  completed  ")
    assert lines[1].endswith("…")
    assert "\x1b[32mcompleted" in printed


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_colour_can_be_turned_off(desk: Desk, env: dict[str, str]) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime)

    printed = await on_a_terminal(desk, "logs", dispatch_id, env=env)

    assert "dispatch.settled" in printed
    assert "\x1b" not in printed


async def test_a_terminal_that_cannot_show_a_character_shows_its_number(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime, ["日本"])

    done = await desk.run("logs", dispatch_id, env={"PYTHONIOENCODING": "ascii"})

    assert (done.code, done.err) == (0, "")
    assert "\\u65e5\\u672c" in done.out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc\r", "a\\tb\\nc\\r"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x85\u2028\u202e\ufeff\udc80", "\\x85\\u2028\\u202e\\ufeff\\udc80"),
        ("👩\u200d🚀 naïve 日本", "👩\u200d🚀 naïve 日本"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_could_command_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_lines_and_tabs_are_kept_where_a_text_has_room() -> None:
    assert plain("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("hello", 5, "hello"),
        ("hello there", 6, "hello…"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("ab cd", 4, "ab…"),
    ],
)
def test_a_text_is_cut_to_the_columns_there_are(text: str, width: int, shown: str) -> None:
    assert shortened(text, width) == shown
    assert cells(shortened(text, width)) <= width


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(seconds=-3), "0 s"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(minutes=2), "2 min"),
        (timedelta(hours=3), "3 h"),
        (timedelta(days=2), "2 d"),
    ],
)
def test_a_duration_is_said_in_its_largest_unit(duration: timedelta, said: str) -> None:
    assert span(duration) == said


def test_an_instant_is_told_from_now() -> None:
    assert ago(NOON - timedelta(seconds=4), NOON) == "4 s ago"
    assert ago(NOON + timedelta(minutes=4), NOON) == "in 4 min"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_json_is_json_whatever_characters_the_output_takes(desk: Desk, encoding: str) -> None:
    said = "grüße, 日本 \N{PARTY POPPER}"
    async with desk.runtime() as runtime:
        [dispatch_id] = await complete(runtime, [said])
    env = {"PYTHONIOENCODING": encoding}

    page = await desk.run("dispatches", "show", dispatch_id, "--json", env=env)
    events = await desk.run("logs", dispatch_id, "--json", env=env)

    assert page.objects[0]["input"]["text"] == said
    assert said in events.objects[2]["data"]["preview"]


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["workers"], ["migrate"], ["send", "standard", "hello", "--print"], ["run", "triage", "-p", "hello"]],
    ids=lambda words: words[0],
)
async def test_every_command_ends_quietly_when_nobody_reads_on(desk: Desk, words: list[str]) -> None:
    await desk.run("migrate")
    reader, writer = os.pipe()
    os.close(reader)

    process = await asyncio.create_subprocess_exec(
        *(desk.python, "-m", "pyflue.cli", *words),
        cwd=desk.root,
        env=desk.env,
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    _, err = await process.communicate()

    assert (process.returncode, err.decode()) == (141, "")
