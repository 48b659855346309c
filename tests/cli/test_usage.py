"""What no command can do anything with is refused before anything starts."""

from __future__ import annotations

import pytest

from tests.cli.operating import Desk


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["worker", "--turns", "-5"], "--turns"),
        (["web", "--port", "99999"], "--port"),
        (["dev", "--port", "99999"], "--port"),
        (["dispatches", "list", "--before", "yesterday"], "dsp_"),
        (["sessions", "list", "--after", "dsp_01m8bb82p7g0j0yteng3j1kwyx"], "ses_"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
async def test_a_value_that_cannot_be_is_a_usage_error(desk: Desk, words: list[str], said: str) -> None:
    done = await desk.run(*words)

    assert (done.code, done.out) == (2, "")
    assert said in done.err
