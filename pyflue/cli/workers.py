"""``pyflue workers``."""

from __future__ import annotations

from datetime import datetime

from pyflue.cli.blocking import is_working
from pyflue.cli.opening import ConfigOption, JsonOption, opened_store, run
from pyflue.cli.reports import WorkerReport, as_json
from pyflue.cli.tables import print_table
from pyflue.cli.terminal import Terminal, span
from pyflue.clock import SystemClock
from pyflue.config import Project, load_project
from pyflue.dispatches import WorkerRow


def command(json: JsonOption = False, config: ConfigOption = "pyflue.toml") -> None:
    """List the worker processes of the last day, live ones first."""
    run(_list(load_project(config), json))


async def _list(project: Project, json: bool) -> None:
    out = Terminal(project.env)
    async with opened_store(project) as store:
        rows = await store.views.workers()
    if json:
        for row in rows:
            out.say(as_json(_report(row)))
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
