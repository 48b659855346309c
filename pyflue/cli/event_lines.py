"""An event as one line: for people, or as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, cast

import msgspec
from msgspec import Raw, Struct

from pyflue.cli.terminal import Colour, Terminal, plain
from pyflue.events import StoredEvent

COLOURS: Final[dict[str, Colour]] = {
    "dispatch.accepted": "cyan",
    "dispatch.parked": "yellow",
    "dispatch.handed_back": "yellow",
    "dispatch.abort_requested": "yellow",
    "entry.quarantined": "red",
    "reply.sent": "green",
    "reply.delayed": "yellow",
    "reply.undeliverable": "red",
}
OUTCOME_COLOURS: Final[dict[str, Colour]] = {"completed": "green", "failed": "red", "aborted": "yellow"}
TYPE_WIDTH: Final = 24  # the longest type there is
_QUOTED: Final = frozenset(" \"'=,")  # a text with one of these is put in quotes


class EventLine(Struct, frozen=True):
    """What ``--json`` prints for an event. ``data`` is as stored, so events of a newer release pass through whole."""

    stream: str
    seq: int
    at: datetime
    type: str
    data: Raw


def json_line(event: StoredEvent) -> str:
    """Write an event as one JSON object."""
    return msgspec.json.encode(EventLine(event.stream, event.seq, event.at, event.type, event.data)).decode()


def pretty_line(event: StoredEvent, out: Terminal) -> str:
    """Write an event for a person: number, time in UTC, type, then ``field=value`` for whatever it holds."""
    data = _fields(event.data)
    outcome = data.get("outcome") if event.type == "dispatch.settled" else None
    colour = OUTCOME_COLOURS.get(outcome) if isinstance(outcome, str) else COLOURS.get(event.type)
    at = event.at.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
    fields = "  ".join(f"{out.paint(name + '=', 'dim')}{value}" for name, value in _flat(data))
    kind = plain(event.type).ljust(TYPE_WIDTH)
    return f"{out.paint(f'{event.seq:>4}  {at}', 'dim')}  {out.paint(kind, colour)}  {fields}".rstrip()


def _fields(data: Raw) -> dict[str, object]:
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"data": bytes(data).decode(errors="backslashreplace")}


def _flat(data: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yield every field but the type, an object's fields by their own names."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, object]", value))
        elif name != "type":
            yield plain(name), _shown(value)


def _shown(value: object) -> str:
    """Write a value for a person: a text as it is, in quotes where its ends would be lost otherwise."""
    if isinstance(value, str):
        text = plain(value)
        return text if value and _QUOTED.isdisjoint(value) else f'"{text}"'
    if isinstance(value, list) and value:
        return ",".join(_shown(item) for item in cast("list[object]", value))
    return plain(json.dumps(value, ensure_ascii=False))
