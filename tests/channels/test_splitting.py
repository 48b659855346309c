"""How long replies are cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflue.channels.splitting import split_parts, split_text

words = st.text(alphabet="abcé 😀.\n\t ", max_size=600)
code_line = st.text(alphabet="xy =  ", max_size=60)
fenced = st.builds(
    lambda indent, marker, info, body: "\n".join([indent + marker + info, *body, indent + marker]),
    st.sampled_from(["", "  "]),
    st.sampled_from(["```", "~~~", "````"]),
    st.sampled_from(["", "py", " js"]),
    st.lists(code_line, max_size=30),
)
markdown = st.lists(st.one_of(words, fenced), max_size=8).map("\n\n".join)


def without_space(text: str) -> str:
    return re.sub(r"\s+", "", text)


def fence_is_closed(part: str) -> bool:
    """Read a part on its own, as a platform would, and tell whether every fence in it is closed."""
    marker = ""
    for line in part.split("\n"):
        found = re.fullmatch(r" {0,12}(`{3,}|~{3,})(.*)", line.rstrip())
        if found and not marker and not ("`" in found[1] and "`" in found[2]):
            marker = found[1]
        elif found and marker and found[1].startswith(marker) and not found[2].strip():
            marker = ""
    return not marker


@given(markdown, st.integers(min_value=80, max_value=400))
def test_every_part_fits_is_not_blank_and_together_they_lose_only_white_space(text: str, limit: int) -> None:
    parts = split_parts(text, limit)

    assert all(0 < len(part.body) <= limit and part.content.strip() for part in parts)
    assert without_space("".join(part.content for part in parts)) == without_space(text)


@given(markdown, st.integers(min_value=80, max_value=400))
def test_no_part_leaves_a_code_fence_open(text: str, limit: int) -> None:
    assert all(fence_is_closed(part) for part in split_text(text, limit))


@given(st.text(alphabet="`~ a\n", max_size=500), st.integers(min_value=40, max_value=90))
def test_odd_fences_still_give_parts_that_fit(text: str, limit: int) -> None:
    parts = split_parts(text, limit)

    assert all(0 < len(part.body) <= limit for part in parts)
    assert without_space("".join(part.content for part in parts)) == without_space(text)


def test_text_within_the_limit_is_sent_as_it_is() -> None:
    text = "  one\n\n    two\n```\ncode\n```"

    assert split_text(text, 40) == [text]


def test_blank_text_gives_no_part() -> None:
    assert split_text(" \n\t ", 40) == []


def test_a_paragraph_end_is_preferred_to_a_line_end_and_a_line_end_to_a_word_end() -> None:
    assert split_text("a" * 30 + "\n\n" + "b" * 5 + "\n" + "c" * 30, 50) == ["a" * 30, "b" * 5 + "\n" + "c" * 30]
    assert split_text("a" * 30 + "\n" + "b c " + "c" * 30, 50) == ["a" * 30, "b c " + "c" * 30]
    assert split_text("a" * 30 + " " + "b" * 30, 50) == ["a" * 30, "b" * 30]
    assert split_text("a" * 70, 40) == ["a" * 40, "a" * 30]


def test_a_fence_is_closed_and_opened_again_with_its_language() -> None:
    text = "```python\n" + "\n".join(f"    line_{number} = {number}" for number in range(20)) + "\n```\nDone."

    parts = split_text(text, 120)

    assert len(parts) > 2
    assert all(part.startswith("```python\n    line_") for part in parts[:-1])
    assert all(part.rstrip().endswith("```") for part in parts[:-1])
    assert parts[-1].endswith("Done.")


def test_the_indentation_of_the_line_after_a_cut_is_kept() -> None:
    assert split_text("a" * 30 + "\n" + "    b" * 8, 50)[1].startswith("    b")


def test_a_word_that_looks_like_a_fence_does_not_begin_a_part() -> None:
    parts = split_text("word " * 9 + "``` word " * 9, 50)

    assert not any(part.startswith("```") for part in parts)


def test_very_long_text_takes_as_many_parts_as_it_needs() -> None:
    assert len(split_text("word " * 100_000, 11_000)) == 46


def test_a_limit_without_room_for_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 40"):
        split_text("text", 39)
