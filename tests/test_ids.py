"""Ids say what they name and when they were made."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from pyflue.clock import Clock
from pyflue.ids import Ids, kind_of, session_id
from pyflue.testing.clock import FakeClock


class _BackwardsClock(FakeClock):
    """A wall clock that is set back by a second at each look."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = 0

    def now(self) -> datetime:
        self._looks += 1
        return super().now() - timedelta(seconds=self._looks)


@pytest.mark.parametrize("clock", [FakeClock(), _BackwardsClock()], ids=["one millisecond", "set back"])
def test_ids_of_one_process_sort_in_the_order_they_were_made(clock: Clock) -> None:
    ids = Ids(clock)

    made = [ids.dispatch() for _ in range(1_000)]

    assert made == sorted(set(made))


def test_later_ids_of_another_process_sort_behind_earlier_ones() -> None:
    clock = FakeClock()
    earlier = Ids(clock).dispatch()
    clock.advance(timedelta(milliseconds=1))

    assert earlier < Ids(clock).dispatch()


def test_an_id_says_what_it_names() -> None:
    ids = Ids(FakeClock())

    assert [kind_of(each) for each in (ids.dispatch(), ids.outbox(), ids.worker(), session_id("agent", "one"))] == [
        "dispatch",
        "outbox",
        "worker",
        "session",
    ]
    assert kind_of("dsp_short") is None


def test_no_two_addresses_share_a_session_id() -> None:
    addresses = [("a", "b", "c"), ("a", "b:c", ""), ("a:b", "c", ""), ("a", "bc", ""), ("ab", "c", ""), ("a", "b", "C")]

    assert len({session_id(*address) for address in addresses}) == len(addresses)
