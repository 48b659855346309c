"""Aligned columns, and pages of named fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyflue.cli.terminal import Terminal, cells, plain, shortened

GAP: Final = "  "
NARROWEST: Final = 6  # columns a cell keeps however narrow the terminal is: lines then wrap


def print_table(
    out: Terminal,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    flexible: Sequence[str],
    status: str = "",
) -> None:
    """Print rows under their headers; cells may hold anything, they are made plain here.

    ``flexible``: the columns that are shortened when a line would not fit; the others, such as ids, stay whole.
    ``status``: the column that is coloured by what it says.
    """
    table = [[plain(cell) for cell in row] for row in rows]
    widths = [max([cells(header), *(cells(row[at]) for row in table)]) for at, header in enumerate(headers)]
    _fit(widths, [headers.index(name) for name in flexible], out.width - len(GAP) * (len(headers) - 1))
    out.say(out.paint(_line(headers, widths), "dim"))
    for row in table:
        shown = [shortened(cell, width) for cell, width in zip(row, widths, strict=True)]
        shown = [cell + " " * (width - cells(cell)) for cell, width in zip(shown, widths, strict=True)]
        if status:
            at = headers.index(status)
            shown[at] = out.status(shown[at])
        out.say(GAP.join(shown).rstrip())


def _fit(widths: list[int], flexible: Sequence[int], room: int) -> None:
    """Take columns from the widest flexible one until the line fits, or none can give any more."""
    while sum(widths) > room:
        widest = max(flexible, key=lambda at: widths[at])
        if widths[widest] <= NARROWEST:
            return
        widths[widest] -= 1


def print_fields(out: Terminal, fields: Sequence[tuple[str, str]]) -> None:
    """Print ``name  value`` lines; fields without a value are left out, further lines of a value are indented."""
    shown = [(name, plain(value, lines=True)) for name, value in fields if value]
    width = max((cells(name) for name, _ in shown), default=0)
    for name, value in shown:
        first, *others = value.split("\n")
        first = out.status(first) if name == "status" else first
        out.say(f"  {out.paint(name.ljust(width), 'dim')}  {first}".rstrip())
        for line in others:
            out.say(f"  {' ' * width}  {line}".rstrip())


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
