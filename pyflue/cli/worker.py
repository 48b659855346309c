"""``pyflue worker``."""

from __future__ import annotations

from typing import Annotated

import typer

from pyflue.cli.processes import load_process
from pyflue.config import load_project


def command(
    turns: Annotated[int, typer.Option(min=0, help="Conversations worked at once; 0 takes [worker] turns.")] = 0,
    config: Annotated[str, typer.Option(help="The settings file.")] = "pyflue.toml",
) -> None:
    """Run agents for what was admitted, until told to stop; SIGTERM hands work back without losing an attempt."""
    load_process("worker")(load_project(config), turns=turns or None)
