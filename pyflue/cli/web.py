"""``pyflue web``."""

from __future__ import annotations

from typing import Annotated

import typer

from pyflue.cli.processes import load_process
from pyflue.config import load_project


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; [web] host otherwise.")] = "",
    port: Annotated[
        int,
        typer.Option(
            min=-1, max=65_535, help="Port to listen on, 0 for a free one; [web] port otherwise.", show_default=False
        ),
    ] = -1,
    config: Annotated[str, typer.Option(help="The settings file.")] = "pyflue.toml",
) -> None:
    """Verify webhooks and admit them durably, until told to stop."""
    project = load_project(config)
    web = project.settings.web
    load_process("web")(project, host=host or web.host, port=web.port if port < 0 else port)
