"""``pyflue migrate``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from pyflue.config import Project, load_project
from pyflue.stores.choose import open_store


def command(config: Annotated[str, typer.Option(help="The settings file.")] = "pyflue.toml") -> None:
    """Apply missing migrations under a lock; safe to run from many hosts at once."""
    applied = asyncio.run(_migrate(load_project(config)))
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo("The schema is up to date.")


async def _migrate(project: Project) -> list[str]:
    store = open_store(project.database_url, pool=1)
    try:
        return await store.migrate()
    finally:
        await store.close()
