"""What the commands that only look have in common: a store opened for the block, and a quiet end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Final, TypeVar

import typer

from pyflue.cli import EXIT_INTERRUPTED, EXIT_PIPE_CLOSED
from pyflue.config import Project
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import Store

CONNECTIONS: Final = 2  # a command reads one thing after another; the second is for what runs beside it

ConfigOption = Annotated[str, typer.Option(help="The settings file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

T = TypeVar("T")


def run(work: Coroutine[None, None, T]) -> T:
    """Run a command to its end. Ctrl-C (exit 130) and a reader that went away (exit 141) end it without a word.

    Logging of the libraries below is dropped: what an operator should know is in the output or in the error.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a terminal that cannot show a character shows its number
    try:
        result = asyncio.run(work)
        sys.stdout.flush()
        return result
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        raise typer.Exit(EXIT_PIPE_CLOSED) from None


@asynccontextmanager
async def opened_store(project: Project) -> AsyncGenerator[Store]:
    """Open the shared storage for the block, and nothing else.

    Raises:
        StoreUnavailableError, SchemaError: as ``Store.open``.
    """
    store = open_store(project.database_url, pool=CONNECTIONS)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
