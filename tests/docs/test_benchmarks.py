"""The page of benchmarks describes the ones there are."""

from __future__ import annotations

from bench.__main__ import BENCHMARKS
from bench.ruler import Spread
from tests.docs.pages import ROOT


def test_every_benchmark_has_its_section() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")

    sections = [line.removeprefix("## ").strip("`") for line in page.splitlines() if line.startswith("## `")]

    assert sections == list(BENCHMARKS)


def test_percentiles_are_samples_that_were_taken() -> None:
    spread = Spread.of([5.0, 1.0, 4.0, 2.0, 3.0])

    assert (spread.median, spread.percentile(0.95), spread.percentile(0.2)) == (3.0, 5.0, 1.0)
