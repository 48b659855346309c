"""``pyflue workers``."""

from __future__ import annotations

import socket
from datetime import datetime
from typing import Annotated

import typer

from pyflue.cli import EXIT_FAILURE
from pyflue.cli.blocking import is_working
from pyflue.cli.opening import ConfigOption, JsonOption, opened_store, run
from pyflue.cli.reports import WorkerReport, as_json
from pyflue.cli.tables import print_table
from pyflue.cli.terminal import Terminal, span
from pyflue.clock import SystemClock
from pyflue.config import Project, load_project
from pyflue.dispatches import WorkerRow

HereOption = Annotated[bool, typer.Option("--here", help="This host's only, and exit 1 if none is live.")]


def command(here: HereOption = False, json: JsonOption = False, config: ConfigOption = "pyflue.toml") -> None:
    """List the worker processes of the last day, live ones first. With --here, a health check of this host."""
    rows = run(_list(load_project(config), json, socket.gethostname() if here else ""))
    now = SystemClock().now()
    if here and not any(is_working(row, now) for row in rows):
        raise typer.Exit(EXIT_FAILURE)


async def _list(project: Project, json: bool, host: str) -> list[WorkerRow]:
    out = Terminal(project.env)
    async with opened_store(project) as store:
        rows = [row for row in await store.views.workers() if host in ("", row.host)]
    _print(out, rows, json)
    return rows


def _print(out: Terminal, rows: list[WorkerRow], json: bool) -> None:
    if json:
        for row in rows:
            out.say_json(as_json(_report(row)))
        return
    if not rows:
        out.say("No workers. Start one with `pyflue worker`, or `pyflue dev`.")
        return
    now = SystemClock().now()
    headers = ("ID", "HOST", "PID", "STATUS", "HEARTBEAT", "SESSIONS", "AGENTS")
    print_table(out, headers, [_cells(row, now) for row in rows], flexible=("HOST", "AGENTS"), status="STATUS")


def _cells(row: WorkerRow, now: datetime) -> tuple[str, ...]:
    overdue = "" if row.status == "dead" or is_working(row, now) else ", overdue"
    return (
        row.id,
        row.host,
        str(row.pid),
        row.status + overdue,
        span(now - row.heartbeat_at),
        str(row.sessions),
        ", ".join(sorted(row.agents)),
    )


def _report(row: WorkerRow) -> WorkerReport:
    return WorkerReport(
        id=row.id,
        host=row.host,
        pid=row.pid,
        status=row.status,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        expires_at=row.expires_at,
        sessions=row.sessions,
        agents=row.agents,
    )
