"""``pyflue run``: one prompt, from the terminal."""

from __future__ import annotations

import json

from tests.cli.operating import Desk

RAISES = """\
from pyflue import create_agent


def configure():
    raise RuntimeError("no luck \\x1b[2J\\x07 today")


default = create_agent(configure, limits={"max_attempts": 1})
"""


async def test_the_answer_is_printed_and_a_program_gets_it_as_it_is(desk: Desk) -> None:
    (desk.root / "agents" / "parrot.py").write_text(
        'from pyflue import create_agent\ndefault = create_agent(lambda: {"model": "offline/echo"})\n', "utf-8"
    )

    done = await desk.run("run", "parrot", "--prompt", "hello \x1b[1mthere")

    assert done.code == 0, done.err
    assert "hello \x1b[1mthere" in done.out


async def test_an_error_cannot_command_the_terminal(desk: Desk) -> None:
    (desk.root / "agents" / "torn.py").write_text(RAISES, "utf-8")

    done = await desk.run("run", "torn", "--prompt", "hello")

    assert done.code == 1
    assert r"no luck \x1b[2J\x07 today" in done.err
    assert "\x1b" not in done.err


async def test_an_agent_that_is_not_there_is_said_so(desk: Desk) -> None:
    done = await desk.run("run", "nobody", "--prompt", "hello")

    assert (done.code, done.out) == (1, "")
    assert "There is no agent named 'nobody'" in done.err


async def test_an_answer_is_printed_where_its_characters_cannot_be(desk: Desk) -> None:
    done = await desk.run("run", "triage", "--prompt", "für dich", env={"PYTHONIOENCODING": "ascii"})

    assert (done.code, done.out) == (0, "You said: f\\xfcr dich\n")


async def test_what_keeps_an_answer_waiting_is_told_meanwhile(desk: Desk) -> None:
    (desk.root / "agents" / "keyless.py").write_text(
        "from pyflue import create_agent\n"
        'default = create_agent(lambda: {"model": "anthropic/claude-haiku-4-5"}, limits={"max_attempts": 1})\n',
        "utf-8",
    )

    done = await desk.run("run", "keyless", "--prompt", "hello")

    told = json.loads(done.err.splitlines()[0])
    assert done.code == 1
    assert (told["event"], "ANTHROPIC_API_KEY is not set" in told["detail"]) == ("agent.build_failed", True)
