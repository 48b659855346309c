"""The examples on the pages: fenced blocks, and the commands and files in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

_BLOCK: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_TITLE: Final = re.compile(r'title="([^"]+)"')
_FIRST_LINE: Final = re.compile(r"# ([\w./-]+\.(?:py|toml))\n")


class Block(NamedTuple):
    """A fenced block. ``file``: the path it stands for, from its title or its first line; empty if none."""

    page: str
    language: str
    file: str
    text: str


class Command(NamedTuple):
    """A command line of a block, and the output shown below it."""

    words: list[str]
    line: str
    output: str


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    for found in _BLOCK.finditer(path.read_text("utf-8")):
        text = textwrap.dedent(found["text"])
        named = _TITLE.search(found["info"]) or _FIRST_LINE.match(text)
        yield Block(path.relative_to(ROOT).as_posix(), found["language"], named[1] if named else "", text)


def all_blocks(*languages: str) -> list[Block]:
    return [block for path in PAGES for block in blocks(path) if block.language in languages]


def commands(block: Block) -> list[Command]:
    """Return the commands of a block: in ``console`` the lines after ``$``, in ``sh`` every line."""
    text = block.text.replace("\\\n", " ")
    if block.language == "sh":
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        return [Command(shlex.split(line, comments=True), line, "") for line in lines]
    found: list[Command] = []
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        line, _, output = part.partition("\n")
        found.append(Command(shlex.split(line, comments=True), line, output))
    return found
