"""``pyflue sessions``: list and show."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec
import typer

from pyflue.cli.entry_lines import entry_report, entry_row
from pyflue.cli.lookup import find_session
from pyflue.cli.opening import ConfigOption, JsonOption, opened_store, run
from pyflue.cli.reports import SessionDetail, as_json, dispatch_report, session_report
from pyflue.cli.tables import print_fields, print_table
from pyflue.cli.terminal import Terminal, ago, moment, span
from pyflue.clock import SystemClock
from pyflue.config import Project, load_project
from pyflue.dispatches import Dispatch, SessionAddress
from pyflue.ids import SessionId, kind_of
from pyflue.stores.protocol import DispatchQuery, SessionQuery, SessionRow, StoredLine

command = typer.Typer(rich_markup_mode=None)

LATEST_DISPATCHES: Final = 10


@command.command("list")
def list_sessions(
    agent: Annotated[str, typer.Option(help="Only those of this agent.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 20,
    after: Annotated[str, typer.Option(help="Only those behind this id, for the next page.")] = "",
    json: JsonOption = False,
    config: ConfigOption = "pyflue.toml",
) -> None:
    """List sessions by id, which is in no order of time."""
    if after and kind_of(after) != "session":
        raise typer.BadParameter("--after takes the id of a session (ses_…).")
    query = SessionQuery(agent or None, SessionId(after) if after else None, limit)
    run(_list(load_project(config), query, json))


@command.command()
def show(
    id: Annotated[str, typer.Argument(help="The session (ses_…); or name it by --agent and --id.")] = "",
    *,
    agent: Annotated[str, typer.Option(help="The agent's name.")] = "",
    instance: Annotated[str, typer.Option("--id", help="The instance's id.")] = "",
    name: Annotated[str, typer.Option(help="The session's name.")] = "default",
    entries: Annotated[bool, typer.Option("--entries", help="Also its journal.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the latest entries.")] = 50,
    json: JsonOption = False,
    config: ConfigOption = "pyflue.toml",
) -> None:
    """Show one session: its mailbox, its latest dispatches and, with --entries, its journal."""
    if bool(id) == bool(agent and instance) or bool(agent) != bool(instance):
        raise typer.BadParameter("Name the session by its id, or by both --agent and --id.")
    wanted = id or SessionAddress(agent, instance, name).id
    run(_show(load_project(config), wanted, limit if entries else 0, json))


async def _list(project: Project, query: SessionQuery, json: bool) -> None:
    out = Terminal(project.env)
    async with opened_store(project) as store:
        rows = await store.views.sessions(query)
    if json:
        for row in rows:
            out.say_json(as_json(session_report(row)))
        return
    if not rows:
        out.say("No sessions.")
        return
    now = SystemClock().now()
    headers = ("ID", "AGENT", "INSTANCE", "ENTRIES", "UNSETTLED", "UPDATED")
    print_table(out, headers, [_cells(row, now) for row in rows], flexible=("AGENT", "INSTANCE"))
    if len(rows) == query.limit:
        out.note(f"More: --after {rows[-1].id}")


def _cells(row: SessionRow, now: datetime) -> tuple[str, ...]:
    address = row.address
    instance = address.instance_id if address.name == "default" else f"{address.instance_id} ({address.name})"
    unsettled = f"{row.unsettled}, held" if row.lease_owner else str(row.unsettled)
    return (row.id, address.agent, instance, str(row.head), unsettled, span(now - row.updated_at))


async def _show(project: Project, given: str, entries: int, json: bool) -> None:
    out = Terminal(project.env)
    lines: list[StoredLine] = []
    async with opened_store(project) as store:
        row = await find_session(store, given)
        latest = await store.views.dispatches(DispatchQuery(session_id=row.id, limit=LATEST_DISPATCHES))
        if entries:
            lines = await store.journal.load(row.id, max(row.head - entries, 0), entries)
    latest.sort(key=lambda dispatch: dispatch.position)
    if json:
        report = SessionDetail(
            **msgspec.structs.asdict(session_report(row)),
            dispatches=tuple(dispatch_report(dispatch, row.address) for dispatch in latest),
            entries=tuple(map(entry_report, lines)),
        )
        out.say_json(as_json(report))
        return
    _print_session(out, row)
    _print_dispatches(out, latest)
    if entries:
        _print_entries(out, lines)


def _print_session(out: Terminal, row: SessionRow) -> None:
    now = SystemClock().now()
    due = "" if row.due_at is None else f"{moment(row.due_at)} UTC  ({ago(row.due_at, now)})"
    out.say(out.paint(row.id, "bold"))
    print_fields(
        out,
        [
            ("agent", row.address.agent),
            ("instance", row.address.instance_id),
            ("name", row.address.name),
            ("entries", str(row.head)),
            ("unsettled", str(row.unsettled)),
            ("held by", row.lease_owner or "nobody"),
            ("due", "" if row.lease_owner else due),
            ("created", f"{moment(row.created_at)} UTC  ({ago(row.created_at, now)})"),
            ("updated", f"{moment(row.updated_at)} UTC  ({ago(row.updated_at, now)})"),
        ],
    )


def _print_dispatches(out: Terminal, latest: list[Dispatch]) -> None:
    if not latest:
        return
    now = SystemClock().now()
    out.say()
    cells = [(row.id, row.status, str(row.position), span(now - row.accepted_at), row.input.text) for row in latest]
    print_table(out, ("DISPATCH", "STATUS", "POSITION", "AGE", "INPUT"), cells, flexible=("INPUT",), status="STATUS")


def _print_entries(out: Terminal, lines: list[StoredLine]) -> None:
    out.say()
    if not lines:
        out.say("No entries in the main database.")
        return
    print_table(
        out,
        ("ENTRY", "AT (UTC)", "KIND", "DISPATCH", "CONTENT"),
        [entry_row(line) for line in lines],
        flexible=("CONTENT",),
    )
