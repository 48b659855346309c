"""Load named SQL statements from ``.sql`` files; both dialects keep theirs this way.

A file holds statements, each under a header::

    -- name: ledger_claim
    -- What it promises and what it locks, in one line or more.
    update sessions set …

A name is a *stem*, which is one promise of the store (``<port>_<method>``), or ``stem.part`` where a dialect needs
several statements to keep that promise. Both dialects have the same stems; parts are each dialect's own business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from msgspec import Struct

_HEADER = re.compile(r"^-- name: (?P<name>[a-z_]+(?:\.[a-z_]+)?)$")


class Query(Struct, frozen=True):
    """One statement. ``doc`` is the comment under its header, lines joined by spaces; ``sql`` has neither."""

    name: str
    doc: str
    sql: str

    @property
    def stem(self) -> str:
        """The promise it belongs to: its name up to the dot."""
        return self.name.partition(".")[0]


class Queries:
    """The statements of one dialect, by name."""

    def __init__(self, statements: dict[str, Query]) -> None:
        self._statements = statements

    def __getitem__(self, name: str) -> str:
        """Return a statement's SQL.

        Raises:
            KeyError: there is no statement of that name.
        """
        return self._statements[name].sql

    def __iter__(self) -> Iterator[Query]:
        return iter(self._statements.values())

    def stems(self) -> frozenset[str]:
        return frozenset(query.stem for query in self)


def load_queries(package: str) -> Queries:
    """Read every ``queries/*.sql`` file of ``package`` (a dotted module name).

    Raises:
        ValueError: text before the first header, a header that cannot be read, an empty statement, or a name used twice.
    """
    statements: dict[str, Query] = {}
    folder = files(package).joinpath("queries")
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".sql"):
            continue
        for query in parse_queries(file.read_text("utf-8"), file.name):
            if query.name in statements:
                raise ValueError(f"{file.name}: statement {query.name} is there twice")
            statements[query.name] = query
    return Queries(statements)


def parse_queries(text: str, origin: str) -> list[Query]:
    """Split one file's text into its statements; ``origin`` names the file in errors. Raises as ``load_queries``."""
    blocks: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("-- name:"):
            header = _HEADER.match(line.rstrip())
            if header is None:
                raise ValueError(f"{origin}: cannot read {line!r}")
            blocks.append((header["name"], []))
        elif blocks:
            blocks[-1][1].append(line)
        elif line.strip() and not line.startswith("--"):
            raise ValueError(f"{origin}: {line!r} stands before the first `-- name:`")
    return [_query(name, lines, origin) for name, lines in blocks]


def _query(name: str, lines: list[str], origin: str) -> Query:
    doc: list[str] = []
    while lines and lines[0].startswith("--"):
        doc.append(lines.pop(0).removeprefix("--").strip())
    sql = "\n".join(lines).strip().removesuffix(";").rstrip()
    if not sql:
        raise ValueError(f"{origin}: statement {name} is empty")
    return Query(name, " ".join(doc), sql)
