"""The real commands with crash points: ``python -m pyflue.testing.process --points DIR [--crash-at POINT] web --port 1``.

What follows the options is a ``pyflue`` command line (``dev``, ``web`` or ``worker``). The process is assembled by
the command itself; only the builders of its store, bell, models and channels are replaced, in this process alone,
by ones that wrap what the real ones build.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import Channel
from pyflue.cli import main as pyflue
from pyflue.clock import Clock
from pyflue.config import ChannelSettings, Secrets
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import Store
from pyflue.testing.crash import (
    BY_NAME,
    Crashes,
    CrashingLocalBell,
    CrashingModels,
    CrashingRedisBell,
    crashing_channel,
    crashing_store,
)


def main(words: Sequence[str] | None = None) -> None:
    """Run a command whose process dies at the armed points."""
    parser = argparse.ArgumentParser(prog="python -m pyflue.testing.process", description="PyFlue with crash points.")
    parser.add_argument("--points", type=Path, required=True, help="the folder in which points are armed")
    parser.add_argument("--crash-at", action="append", default=[], choices=sorted(BY_NAME), metavar="POINT")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="dev, web or worker, with its options")
    given = parser.parse_args(words)
    crashes = Crashes(given.points)
    for point in given.crash_at:
        crashes.arm(point)
    install(crashes, given.command[0])
    sys.argv = ["pyflue", *given.command]
    pyflue()


def install(crashes: Crashes, command: str) -> None:
    """Make the parts of this process crash where ``crashes`` says. There is no way back."""

    def store(url: str, *, pool: int = 6, clock: Clock | None = None) -> Store:
        return crashing_store(open_store(url, pool=pool, clock=clock), crashes)

    def channels(
        settings: Mapping[str, ChannelSettings], secrets: Secrets, *, timeout: float, clock: Clock | None = None
    ) -> dict[str, Channel]:
        built = build_channels(settings, secrets, timeout=timeout, clock=clock)
        return {name: crashing_channel(channel, crashes) for name, channel in built.items()}

    parts: dict[str, Callable[..., object]] = {"open_store": store, "build_channels": channels}
    _replace("pyflue.runtime", {**parts, "ModelProviders": _bound(CrashingModels, crashes)})
    if command == "web":  # a package of its own, which the library must not import
        _replace("pyflue_web.process", {**parts, "RedisBell": _bound(CrashingRedisBell, crashes)})
    else:
        _replace("pyflue.cli.embedded", {"LocalBell": _bound(CrashingLocalBell, crashes)})


def _bound(kind: type, crashes: Crashes) -> type:
    """Return the class with its crash points set, so that it is built like the one it replaces."""
    return type(kind.__name__, (kind,), {"crashes": crashes})


def _replace(module: str, parts: Mapping[str, Callable[..., object]]) -> None:
    """Rebind names that a module of an assembly uses; one that it has not is a mistake here."""
    target = import_module(module)
    for name, part in parts.items():
        if not hasattr(target, name):
            raise AttributeError(f"{module} has no {name}; its assembly has changed")
        setattr(target, name, part)


if __name__ == "__main__":
    main()
