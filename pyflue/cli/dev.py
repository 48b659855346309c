"""``pyflue dev``."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from pyflue.channels.choose import unbuilt_channels
from pyflue.cli.embedded import open_embedded, until_told_to_stop
from pyflue.cli.terminal import plain
from pyflue.config import Project, load_project
from pyflue.observers.logs import configure
from pyflue.runtime import Runtime

WATCHED: Final = ("*.py", "*.toml", "*.md")
IGNORED: Final = frozenset({".pyflue", ".venv", ".git", "node_modules", "__pycache__"})
LOOK_EVERY: Final = 0.5  # seconds between looks at the project's files
DRAIN: Final = timedelta(seconds=3)


def command(
    host: Annotated[str, typer.Option(help="Address to listen on; [web] host otherwise.")] = "",
    port: Annotated[
        int, typer.Option(min=-1, max=65_535, help="Port to listen on; [web] port otherwise.", show_default=False)
    ] = -1,
    reload: Annotated[bool, typer.Option(help="Start again when a file of the project changes.")] = True,
    config: Annotated[str, typer.Option(help="The settings file.")] = "pyflue.toml",
) -> None:
    """Run front, worker and store in one process, with no services; start again when a file changes."""
    if reload:
        raise typer.Exit(_reloading(config, host, port))
    project = load_project(config)
    web = project.settings.web
    configure(project.settings.log, sys.stderr, project.secrets.all)
    asyncio.run(_serve(project, host or web.host, web.port if port < 0 else port))


async def _serve(project: Project, host: str, port: int) -> None:
    async with open_embedded(project, host, port, DRAIN) as embedded:
        runtime = embedded.runtime
        typer.echo(f"PyFlue listens at {embedded.url}")
        typer.echo(f"  store     {_shown(project)}")
        typer.echo(f"  agents    {', '.join(sorted(runtime.registry.names)) or 'none: put one in agents/NAME.py'}")
        for name, reason in runtime.registry.broken.items():
            typer.echo(f"  broken    {name}: {plain(reason)}", err=True)
        for name in sorted(runtime.channels):
            typer.echo(f"  channel   {embedded.url}/webhooks/{name}")
        for warning in _missing(runtime):
            typer.echo(f"  missing   {warning}", err=True)
        await until_told_to_stop()


def _missing(runtime: Runtime) -> Iterator[str]:
    """Yield what keeps a configured channel from being answered."""
    channels = runtime.project.settings.channels
    for name, reason in unbuilt_channels(channels, runtime.project.secrets).items():
        yield f"channel {name}: {reason}"
    for name, channel in sorted(channels.items()):
        if channel.agent not in runtime.registry.names:
            yield f"channel {name}: there is no agent {channel.agent!r}"


def _shown(project: Project) -> str:
    url = project.database_url
    return url if url.startswith(("sqlite:", "memory:")) else url.split("://", 1)[0]


def _reloading(config: str, host: str, port: int) -> int:
    """Run the server in a child process and replace it whenever a watched file changes."""
    root = Path(config).resolve().parent
    words = [sys.executable, "-m", "pyflue.cli", "dev", "--no-reload", "--config", config, "--host", host]
    words += ["--port", str(port)]
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    seen = _stamps(root)
    child = subprocess.Popen(words)
    told = False
    while not stopping:
        time.sleep(LOOK_EVERY)
        if child.poll() is not None and not told:
            typer.echo("It ended; waiting for a file to change.", err=True)
        told = child.poll() is not None
        now = _stamps(root)
        if now != seen:
            seen = now
            typer.echo("A file changed; starting again.")
            _end(child)
            child = subprocess.Popen(words)
    _end(child)
    return 0


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(DRAIN.total_seconds() + 10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _stamps(root: Path) -> dict[str, int]:
    """Return what tells a changed file: its path and time of change. What PyFlue writes itself is left out."""
    stamps: dict[str, int] = {}
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in IGNORED and not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if any(path.match(pattern) for pattern in WATCHED):
                try:
                    stamps[str(path)] = path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
    return stamps
