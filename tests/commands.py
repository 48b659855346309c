"""The production processes, as the command lines that start them. compose.yaml runs the same ones."""

from __future__ import annotations

from typing import Final

MIGRATE: Final = ("pyflue", "migrate")
WORKER: Final = ("pyflue", "worker")


def web(host: str, port: int) -> tuple[str, ...]:
    """Return the command of a front that listens on ``host`` and ``port``."""
    return ("pyflue", "web", "--host", host, "--port", str(port))
