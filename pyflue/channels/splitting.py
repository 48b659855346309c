"""Cutting a long reply into parts a platform takes, without spoiling its Markdown.

Cuts are made at a paragraph end, else a line end, else between words, else anywhere. A part that would end inside
a fenced code block closes the fence, and the next part opens it again with the same info string. Nothing is lost
but the white space at the cuts.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from msgspec import Struct

# CommonMark 0.31 section 4.5, but with deeper indentation: models put fences inside list items.
_FENCE: Final = re.compile(r"(?P<indent> {0,12})(?P<marker>`{3,}|~{3,})(?P<info>.*)")


class Part(Struct, frozen=True):
    """A slice of the text with the fence lines added around it; ``body`` is what is sent."""

    reopen: str
    content: str
    close: str

    @property
    def body(self) -> str:
        return self.reopen + self.content + self.close


class _Fence(Struct, frozen=True):
    indent: str
    marker: str
    info: str

    @property
    def reopen(self) -> str:
        return f"{self.indent}{self.marker}{self.info}\n"

    @property
    def close(self) -> str:
        return f"\n{self.indent}{self.marker}"


class _Line(Struct, frozen=True):
    """A line of the text from ``start`` up to ``end`` (after its newline); ``inside`` is the fence open where it starts."""

    start: int
    end: int
    inside: _Fence | None
    opens: bool = False
    closes: bool = False


def split_text(text: str, limit: int) -> list[str]:
    """Cut ``text`` into parts of at most ``limit`` characters, none of them blank; blank text gives no part.

    ``limit`` must be at least 40.
    """
    return [part.body for part in split_parts(text, limit)]


def split_parts(text: str, limit: int) -> list[Part]:
    """Like ``split_text``, with each part's own content told apart from the fence lines added around it."""
    if limit < 40:
        raise ValueError("a part needs room for at least 40 characters")
    lines = _read_lines(text, longest_fence=limit // 8)
    starts = [line.start for line in lines]
    parts: list[Part] = []
    at = 0
    while at < len(text):
        fence = _fence_at(lines, starts, at)
        reopen = fence.reopen if fence else ""
        cut, close = _cut(text, at, limit - len(reopen), lines, starts)
        content = text[at:cut].rstrip()
        if content:
            parts.append(Part(reopen, content, close))
        at = _after_white_space(text, cut)
    return parts


def _read_lines(text: str, longest_fence: int) -> list[_Line]:
    """Tell for each line which fence it is in. A fence line too long to be repeated counts as plain text."""
    lines: list[_Line] = []
    fence: _Fence | None = None
    start = 0
    for raw in text.split("\n"):
        end = start + len(raw) + 1
        found = _FENCE.fullmatch(raw.rstrip()) if len(raw) <= longest_fence else None
        inside = fence
        if found and fence is None and not ("`" in found["marker"] and "`" in found["info"]):
            fence = _Fence(found["indent"], found["marker"], found["info"])
            lines.append(_Line(start, end, inside, opens=True))
        elif found and fence and found["marker"].startswith(fence.marker) and not found["info"].strip():
            fence = None
            lines.append(_Line(start, end, inside, closes=True))
        else:
            lines.append(_Line(start, end, inside))
        start = end
    return lines


def _line_at(lines: list[_Line], starts: list[int], at: int) -> _Line:
    return lines[bisect_right(starts, at) - 1]


def _fence_at(lines: list[_Line], starts: list[int], at: int) -> _Fence | None:
    """Return the fence that a part starting at ``at`` would have to open again."""
    return _line_at(lines, starts, at).inside


def _cut(text: str, at: int, room: int, lines: list[_Line], starts: list[int]) -> tuple[int, str]:
    """Choose where the part that starts at ``at`` ends, and the line that closes its fence, if it ends inside one."""
    if len(text) - at <= room:
        return len(text), ""
    cut = _best_cut(text, at, at + room, lines, starts)
    fence = _fence_at(lines, starts, cut)
    if fence is None:
        return cut, ""
    line = _line_at(lines, starts, cut)
    if line.closes and line.start == cut and line.end - 1 <= at + room:
        return min(line.end, len(text)), ""
    cut = _best_cut(text, at, at + room - len(fence.close), lines, starts)
    fence = _fence_at(lines, starts, cut)
    return cut, fence.close if fence else ""


def _best_cut(text: str, at: int, end: int, lines: list[_Line], starts: list[int]) -> int:
    """Return the best place in ``(at, end]``: paragraph end, line end, word end, or ``end`` itself."""
    # Not in the first third: such a part is too short to be worth the nicer place. That also keeps every cut beyond a
    # fence line the part may start with, since those have at most an eighth of the limit.
    early = at + (end - at) // 3
    for separator in ("\n\n", "\n"):
        # the separator itself is dropped, so it may lie beyond the end
        found = text.rfind(separator, early, end + len(separator))
        if found > at:
            return _outside_fence_lines(found + len(separator), at, lines, starts)
    for place in range(end, early, -1):
        # a word that begins like a fence must not come to stand at the start of a part
        if text[place].isspace() and text[place + 1 : place + 2] not in ("`", "~"):
            return _outside_fence_lines(place, at, lines, starts)
    while end > early + 1 and text[end] in "`~":
        end -= 1
    return _outside_fence_lines(end, at, lines, starts)


def _outside_fence_lines(cut: int, at: int, lines: list[_Line], starts: list[int]) -> int:
    """Move a cut that falls inside a fence line, or right after an opening one, to the start of that line."""
    line = _line_at(lines, starts, cut)
    if line.start == cut:
        line = _line_at(lines, starts, cut - 1)
        return line.start if line.opens and line.start > at else cut
    return line.start if (line.opens or line.closes) and line.start > at else cut


def _after_white_space(text: str, cut: int) -> int:
    """Skip the white space at a cut, but keep the indentation of a line that follows it."""
    end = cut
    while end < len(text) and text[end].isspace():
        end += 1
    newline = text.rfind("\n", cut, end)
    if newline >= 0:
        return newline + 1
    return cut if text[cut - 1] == "\n" else end
