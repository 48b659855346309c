"""What a conversation store promises, whoever brings it."""

from __future__ import annotations

import asyncio

import pytest

from pyflue.stores.protocol import HeadMoved, SessionStore


class SessionStoreContract:
    """``SessionStore``. A subclass gives a fixture ``sessions``: an empty one."""

    async def test_entries_are_numbered_from_one_without_gaps(self, sessions: SessionStore) -> None:
        assert await sessions.append("one", 0, [b'"a"', b'"b"']) == 2
        assert await sessions.append("one", 2, [b'"c"']) == 3

        assert await sessions.load("one") == [(1, b'"a"'), (2, b'"b"'), (3, b'"c"')]

    async def test_reading_starts_after_the_number_given(self, sessions: SessionStore) -> None:
        await sessions.append("one", 0, [b"1", b"2", b"3"])

        assert await sessions.load("one", after=1) == [(2, b"2"), (3, b"3")]
        assert await sessions.load("one", after=3) == []

    async def test_a_session_nobody_wrote_to_is_empty(self, sessions: SessionStore) -> None:
        assert await sessions.load("nowhere") == []

    @pytest.mark.parametrize("expected", [0, 1, 3])
    async def test_an_append_over_another_head_changes_nothing_and_tells_the_head(
        self, sessions: SessionStore, expected: int
    ) -> None:
        await sessions.append("one", 0, [b"1", b"2"])

        with pytest.raises(HeadMoved) as moved:
            await sessions.append("one", expected, [b"3", b"4"])

        assert moved.value.head == 2
        assert await sessions.load("one") == [(1, b"1"), (2, b"2")]

    async def test_appending_nothing_keeps_the_head_and_still_checks_it(self, sessions: SessionStore) -> None:
        await sessions.append("one", 0, [b"1"])

        assert await sessions.append("one", 1, []) == 1
        with pytest.raises(HeadMoved):
            await sessions.append("one", 0, [])

    async def test_of_many_appends_at_once_over_one_head_exactly_one_wins(self, sessions: SessionStore) -> None:
        results = await asyncio.gather(
            *(sessions.append("one", 0, [str(n).encode(), b"0"]) for n in range(8)), return_exceptions=True
        )

        assert sum(isinstance(result, HeadMoved) for result in results) == 7
        assert [number for number, _ in await sessions.load("one")] == [1, 2]

    async def test_entries_come_back_byte_for_byte(self, sessions: SessionStore) -> None:
        entries = [
            b'{"z": 1.50,  "a": "\\u0000"}',
            '{"snow":"\u2603","nul":"\\u0000"}'.encode(),
            b'"' + b"x" * 2_500_000 + b'"',
        ]

        await sessions.append("one", 0, entries)

        assert [entry for _, entry in await sessions.load("one")] == entries

    async def test_sessions_are_separate(self, sessions: SessionStore) -> None:
        await sessions.append("one", 0, [b"1"])

        assert await sessions.append("two", 0, [b"2"]) == 1
        assert await sessions.load("one") == [(1, b"1")]

    async def test_a_deleted_session_starts_anew_and_deleting_an_unknown_one_is_no_error(
        self, sessions: SessionStore
    ) -> None:
        await sessions.append("one", 0, [b"1"])
        await sessions.append("two", 0, [b"2"])

        await sessions.delete("one")
        await sessions.delete("nowhere")

        assert await sessions.load("one") == []
        assert await sessions.append("one", 0, [b"3"]) == 1
        assert await sessions.load("two") == [(1, b"2")]
