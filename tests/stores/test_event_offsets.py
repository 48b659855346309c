"""Read a stream from any offset, at any moment, over any crashes: put together it is the stored log, exactly."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from pyflue.entries import AdvisoryEntry
from pyflue.errors import LeaseLost
from pyflue.events import ToolStarted
from pyflue.stores.memory import MemoryStore
from pyflue.stores.protocol import Store
from pyflue.stores.sqlite import SQLiteStore
from pyflue.testing.clock import FakeClock
from pyflue.testing.contracts.stage import Scene, Turn

EXAMPLES = {"memory": 150, "sqlite": 15}  # each example of SQLite makes a database file


class Write(Struct, frozen=True):
    """The worker appends an entry with so many events."""

    events: int


class Crash(Struct, frozen=True):
    """The worker dies; another takes over, and the dead one's last write arrives late or never."""

    late: bool


class Read(Struct, frozen=True):
    """A reader looks again, for at most so many events."""

    reader: int
    limit: int


Step = Write | Crash | Read
STEPS = st.lists(
    st.one_of(
        st.builds(Write, st.integers(0, 4)),
        st.builds(Crash, st.booleans()),
        st.builds(Read, st.integers(0, 2), st.integers(1, 3)),
    ),
    max_size=25,
)
OFFSETS = st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(0, 30))


async def play(store: Store, clock: FakeClock, steps: list[Step], offsets: tuple[int, ...]) -> None:
    scene = Scene(store, clock)
    turn = await scene.start()
    seen: list[list[int]] = [[] for _ in offsets]

    async def look(reader: int, limit: int) -> bool:
        after = seen[reader][-1] if seen[reader] else offsets[reader]
        page = await store.events.read(turn.dispatch_id, after, limit)
        seen[reader].extend(event.seq for event in page)
        return bool(page)

    for step in steps:
        match step:
            case Write(count):
                await append(turn, count)
            case Crash(late):
                dead, lease = turn, await scene.take_over(turn)
                turn = await scene.begin(lease)
                if late:
                    with pytest.raises(LeaseLost):
                        await append(dead, 2)
            case Read(reader, limit):
                await look(reader, limit)
    await turn.settle()

    for reader in range(len(offsets)):
        while await look(reader, 2):
            pass
    stored = [event.seq for event in await store.events.read(turn.dispatch_id)]
    assert stored == list(range(1, len(stored) + 1))
    assert seen == [[seq for seq in stored if seq > offset] for offset in offsets]


async def append(turn: Turn, count: int) -> None:
    events = tuple(ToolStarted(f"call-{number}", "look") for number in range(count))
    await turn.append(AdvisoryEntry("note", "something happened"), events=events)


def run(kind: Literal["memory", "sqlite"], steps: list[Step], offsets: tuple[int, ...]) -> None:
    async def with_store() -> None:
        clock = FakeClock()
        with tempfile.TemporaryDirectory() as folder:
            store: Store = MemoryStore(clock) if kind == "memory" else SQLiteStore(Path(folder, "x.db"), clock=clock)
            await store.migrate()
            await store.open()
            try:
                await play(store, clock, steps, offsets)
            finally:
                await store.close()

    asyncio.run(with_store())


@given(steps=STEPS, offsets=OFFSETS)
@settings(max_examples=EXAMPLES["memory"], deadline=None)
def test_readers_of_memory_see_the_whole_log_from_their_offset(steps: list[Step], offsets: tuple[int, ...]) -> None:
    run("memory", steps, offsets)


@given(steps=STEPS, offsets=OFFSETS)
@settings(max_examples=EXAMPLES["sqlite"], deadline=None)
def test_readers_of_sqlite_see_the_whole_log_from_their_offset(steps: list[Step], offsets: tuple[int, ...]) -> None:
    run("sqlite", steps, offsets)
