"""Measuring: processor time of other processes, spreads of samples, and how they are printed."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from typing import Self

import psutil
from msgspec import Struct


class Options(Struct, frozen=True):
    """How a benchmark is run. ``quick``: fewer rounds, for a look; the ratios are then less certain."""

    quick: bool = False

    def rounds(self, usual: int) -> int:
        """Return how many rounds to run."""
        return max(2, usual // 3) if self.quick else usual


class Spread(Struct, frozen=True):
    """Samples of one thing, in one unit."""

    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        return cls(tuple(sorted(samples)))

    @property
    def median(self) -> float:
        middle = len(self.samples) // 2
        if len(self.samples) % 2:
            return self.samples[middle]
        return (self.samples[middle - 1] + self.samples[middle]) / 2

    def percentile(self, share: float) -> float:
        """Return the sample below or at which ``share`` (0 to 1) of all samples lie."""
        return self.samples[max(0, math.ceil(share * len(self.samples)) - 1)]

    def show(self, digits: int = 2) -> str:
        low, high = self.samples[0], self.samples[-1]
        return f"{self.median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"

    def percentiles(self) -> str:
        """Show what waiting feels like."""
        return f"p50 {self.median:.1f}  p95 {self.percentile(0.95):.1f}  p99 {self.percentile(0.99):.1f}"


def cpu_seconds(*pids: int) -> float:
    """Return the user and system time these processes have used so far, to the 10 ms the kernel counts in."""
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


def resident_megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1_000_000


def verdict(value: float, target: float, *, at_most: bool = True) -> str:
    met = value <= target if at_most else value >= target
    return "met" if met else "MISSED"


def machine() -> str:
    """Describe where the numbers were taken."""
    load = os.getloadavg()[0]
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load average {load:.1f}"
    )
