"""What the commands that only look have in common: a store opened for the block, and a quiet end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Final, TypeVar

import typer

from pyflue.cli import EXIT_INTERRUPTED
from pyflue.config import Project
from pyflue.stores.choose import open_store
from pyflue.stores.protocol import Store

CONNECTIONS: Final = 2  # a command reads one thing after another; the second is for what runs beside it

ConfigOption = Annotated[str, typer.Option(help="The settings file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]

T = TypeVar("T")


def run(work: Coroutine[None, None, T]) -> T:
    """Run a command to its end; Ctrl-C ends it without a word.

    Logging of the libraries below is dropped: what an operator should know is in the output or in the error.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


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
