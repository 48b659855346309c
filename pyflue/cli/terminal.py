"""Text for a terminal: what others wrote is shown, never obeyed; colour and width only where there is a terminal."""

from __future__ import annotations

import codecs
import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import typer

Colour = Literal["green", "red", "yellow", "cyan", "dim", "bold"]

DEFAULT_WIDTH: Final = 160  # cells of a line that goes to a file or another program
_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, invisible marks, broken characters, line ends
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_JOINERS: Final = frozenset("\u200c\u200d")  # of category Cf too, but part of ordinary writing and of emoji
STATUS_COLOURS: Final[dict[str, Colour]] = {
    "queued": "cyan",
    "running": "cyan",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red",
    "aborted": "yellow",
    "pending": "cyan",
    "sending": "cyan",
    "sent": "green",
    "undeliverable": "red",
    "live": "green",
    "draining": "yellow",
    "dead": "dim",
}


def plain(text: str, *, lines: bool = False) -> str:
    """Write control characters, invisible marks and line ends as escapes; ``lines`` keeps line feeds and tabs.

    What agents and users wrote could otherwise move the cursor, change colours or hide text.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, lines) for character in text)


def _shown(character: str, lines: bool) -> str:
    if unicodedata.category(character) not in _UNSAFE or character in _JOINERS or (lines and character in "\n\t"):
        return character
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cells(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or character in _JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """Cut a text to ``width`` columns, with an ellipsis where something is missing."""
    if cells(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _cells_of(character)
        if used > width - 1:
            break
        kept += character
    return kept.rstrip() + "…"


class Terminal:
    """Where a command writes. ``env`` is the environment, for NO_COLOR and TERM."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.interactive = sys.stdout.isatty()
        self._colourful = self.interactive and not env.get("NO_COLOR") and env.get("TERM") != "dumb"

    @property
    def width(self) -> int:
        """Return the columns of a line; a terminal's own, or plenty where there is none."""
        return shutil.get_terminal_size().columns if self.interactive else DEFAULT_WIDTH

    def paint(self, text: str, colour: Colour | None) -> str:
        """Colour a text, if colours show here. The text must be plain already."""
        if colour is None or not self._colourful:
            return text
        if colour in ("dim", "bold"):
            return typer.style(text, dim=colour == "dim" or None, bold=colour == "bold" or None)
        return typer.style(text, fg=colour)

    def status(self, text: str) -> str:
        """Colour a line or word that begins with a status by that status."""
        return self.paint(text, STATUS_COLOURS.get(text.partition(",")[0].strip()))

    def say(self, line: str = "") -> None:
        """Print one line at once, so that a reader on a pipe sees it when it happens."""
        print(line, flush=True)

    def say_json(self, line: str) -> None:
        """Print a line of JSON, in ASCII where the output is not UTF-8: JSON is read as nothing else."""
        utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
        self.say(line if utf8 else _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], line))

    def note(self, line: str) -> None:
        """Tell a person watching something that is not part of the output."""
        if self.interactive and sys.stderr.isatty():
            print(self.paint(line, "dim"), file=sys.stderr, flush=True)


def span(duration: timedelta) -> str:
    """Say a duration in its largest unit: ``4 s``, ``12 min``, ``3 h``, ``5 d``. Negative ones, of clocks apart, are 0."""
    seconds = max(duration.total_seconds(), 0.0)
    for limit, unit, name in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{int(seconds / unit)} {name}"
    return f"{int(seconds / 86_400)} d"


def moment(at: datetime) -> str:
    """Say an instant in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def ago(at: datetime, now: datetime) -> str:
    """Say how long before ``now`` an instant was, or how long after it it will be."""
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
