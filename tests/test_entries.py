"""Journal entries only grow: what any release wrote is read by every later one.

``tests/golden/entries.jsonl`` holds a line of every kind and shape ever written. Lines are added, never changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from pyflue.entries import (
    ENTRY_KINDS,
    Entry,
    ToolResultEntry,
    decode_entry,
    encode_entry,
    kind_of_entry,
)
from pyflue.errors import DamagedEntryError, UnknownEntryKindError

GOLDEN = (Path(__file__).parent / "golden" / "entries.jsonl").read_bytes().splitlines()

FIRST_FIELDS = {
    "input": {"text"},
    "answer": {"content", "stop_reason", "model"},
    "tool_started": {"call_id", "name"},
    "tool_result": {"call_id", "name", "content"},
    "summary": {"text"},
    "advisory": {"code", "text"},
    "hidden": {"from_seq", "to_seq"},
    "state": {"name", "value"},
}
"""The fields each kind was born with. Any other field must have a default, or old lines could not be read."""


@pytest.mark.parametrize("line", GOLDEN, ids=range(len(GOLDEN)))
def test_every_line_ever_written_is_read_and_written_back_the_same(line: bytes) -> None:
    assert encode_entry(decode_entry(line)) == line


def test_there_is_a_line_of_every_kind_and_of_every_way_a_call_can_end() -> None:
    read = [decode_entry(line) for line in GOLDEN]

    assert {kind_of_entry(entry) for entry in read} == ENTRY_KINDS == set(FIRST_FIELDS)
    outcomes = {entry.outcome for entry in read if isinstance(entry, ToolResultEntry)}
    assert outcomes == {"done", "error", "unknown", "not_run"}


@pytest.mark.parametrize("kind", get_args(Entry), ids=lambda kind: kind.__name__)
def test_fields_added_since_have_defaults(kind: type[msgspec.Struct]) -> None:
    required = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}

    assert required == FIRST_FIELDS[str(kind.__struct_config__.tag)]


@pytest.mark.parametrize("line", GOLDEN, ids=range(len(GOLDEN)))
def test_a_field_of_a_newer_release_is_passed_over(line: bytes) -> None:
    newer = line[:-1] + b',"invented_later":{"a":1}}'

    assert decode_entry(newer) == decode_entry(line) or encode_entry(decode_entry(newer)) == line


def test_a_kind_of_a_newer_release_is_told_from_damage() -> None:
    with pytest.raises(UnknownEntryKindError) as newer:
        decode_entry(b'{"kind":"telepathy","thought":1}')
    assert newer.value.kind == "telepathy"
    for damaged in (
        b"",
        b"null",
        b"\xff\xfe",
        b'{"text":"no kind"}',
        b'{"kind":"input"}',
        b'{"kind":7}',
        b'{"kind":"input"',
    ):
        with pytest.raises(DamagedEntryError):
            decode_entry(damaged)
