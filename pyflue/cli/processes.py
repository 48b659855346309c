"""The two production processes live in packages of their own; they are found by entry point and loaded when run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from pyflue.errors import ConfigurationError


def load_process(name: str) -> Callable[..., None]:
    """Return the function that runs a process, such as ``web`` or ``worker``.

    Raises:
        ConfigurationError: this installation lacks it.
    """
    found = [point for point in entry_points(group="pyflue.processes") if point.name == name]
    if not found:
        raise ConfigurationError(
            f"The {name!r} process is not installed.",
            cause="Its entry point is missing from the pyflue distribution.",
            fix="Install pyflue again.",
        )
    process: Callable[..., None] = found[0].load()
    return process
