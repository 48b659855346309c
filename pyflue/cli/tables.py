"""Aligned columns, and pages of named fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyflue.cli.terminal import Terminal, cells, plain, shortened

GAP: Final = "  "
NARROWEST: Final = 16  # columns the last cell keeps however narrow the terminal is: lines then wrap


def print_table(out: Terminal, headers: Sequence[str], rows: Sequence[Sequence[str]], status: int = -1) -> None:
    """Print rows under their headers. Only the last column is shortened to fit: ids stay whole.

    ``status``: the column that is coloured by what it says. Cells may hold anything; they are made plain here.
    """
    table = [[plain(cell) for cell in row] for row in rows]
    widths = [max([cells(header), *(cells(row[at]) for row in table)]) for at, header in enumerate(headers)]
    before = sum(width + len(GAP) for width in widths[:-1])
    widths[-1] = min(widths[-1], max(out.width - before, NARROWEST))
    out.say(out.paint(_line(headers, widths), "dim"))
    for row in table:
        row[-1] = shortened(row[-1], widths[-1])
        padded = [cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True)]
        if status >= 0:
            padded[status] = out.status(padded[status])
        out.say(GAP.join(padded).rstrip())


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
