"""``pyflue dispatches``: list, show, abort and replay."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import typer

from pyflue.bells.local import LocalBell
from pyflue.cli.blocking import Surroundings, blocked_by
from pyflue.cli.dispatch_page import print_dispatch
from pyflue.cli.lookup import find_dispatch, find_session, unsettled_of
from pyflue.cli.opening import ConfigOption, JsonOption, opened_store, run
from pyflue.cli.reports import as_json, dispatch_detail, dispatch_report
from pyflue.cli.tables import print_table
from pyflue.cli.terminal import Terminal, span
from pyflue.clock import SystemClock
from pyflue.config import Project, load_project
from pyflue.dispatches import TERMINAL, Admission, DedupeKey, Dispatch, SessionAddress, Status
from pyflue.errors import InvalidInputError
from pyflue.events import DispatchParked, decode_event
from pyflue.ids import DispatchId, Ids, SessionId, kind_of
from pyflue.mailbox.admit import Admitter
from pyflue.stores.protocol import DispatchQuery, Store

command = typer.Typer(rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(help="The dispatch (dsp_…), or one of its replies (out_…).")]
LATEST_EVENTS: Final = 100  # how far back the reason of the last parking is looked for


@command.command("list", short_help="The newest first.")
def list_dispatches(
    *,
    status: Annotated[Status | None, typer.Option(help="Only those in this status.")] = None,
    agent: Annotated[str, typer.Option(help="Only those of this agent.")] = "",
    session: Annotated[str, typer.Option(help="Only those of this session (ses_…).")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 20,
    before: Annotated[str, typer.Option(help="Only older ones than this id, for the next page.")] = "",
    json: JsonOption = False,
    config: ConfigOption = "pyflue.toml",
) -> None:
    """List dispatches, newest first."""
    if before and kind_of(before) != "dispatch":
        raise typer.BadParameter("--before takes the id of a dispatch (dsp_…).")
    query = DispatchQuery(
        status=status,
        agent=agent or None,
        session_id=SessionId(session) if session else None,
        before=DispatchId(before) if before else None,
        limit=limit,
    )
    run(_list(load_project(config), query, json))


@command.command(short_help="One with its outcome, replies, and what it waits for.")
def show(id: IdArgument, json: JsonOption = False, config: ConfigOption = "pyflue.toml") -> None:
    """Show one dispatch: input, outcome, replies, and what it waits for."""
    run(_show(load_project(config), id, json))


@command.command(short_help="Ask for an unsettled one to be aborted.")
def abort(id: IdArgument, config: ConfigOption = "pyflue.toml") -> None:
    """Ask for an unsettled dispatch to be aborted; whoever works it stops within about a second."""
    run(_abort(load_project(config), id))


@command.command(short_help="Run a settled one once more, as a new one.")
def replay(id: IdArgument, config: ConfigOption = "pyflue.toml") -> None:
    """Admit the input of a settled dispatch once more, as a new dispatch, and print the new id."""
    run(_replay(load_project(config), id))


async def _list(project: Project, query: DispatchQuery, json: bool) -> None:
    out = Terminal(project.env)
    async with opened_store(project) as store:
        if query.session_id is not None:
            await find_session(store, query.session_id)
        rows = await store.views.dispatches(query)
        addresses = await _addresses(store, rows)
    if json:
        for row in rows:
            out.say_json(as_json(dispatch_report(row, addresses[row.session_id])))
        return
    if not rows:
        out.say("No dispatches.")
        return
    now = SystemClock().now()
    cells = [_cells(row, addresses[row.session_id], now) for row in rows]
    print_table(
        out,
        ("ID", "STATUS", "AGENT", "INSTANCE", "AGE", "INPUT"),
        cells,
        flexible=("AGENT", "INSTANCE", "INPUT"),
        status="STATUS",
    )
    if len(rows) == query.limit:
        out.note(f"Older ones: --before {rows[-1].id}")


def _cells(row: Dispatch, address: SessionAddress, now: datetime) -> tuple[str, ...]:
    parked = row.status == "queued" and row.available_at > now
    status = "queued, parked" if parked else row.status
    age = span(now - row.accepted_at)
    return (row.id, status, address.agent, address.instance_id, age, row.input.text)


async def _addresses(store: Store, rows: list[Dispatch]) -> dict[SessionId, SessionAddress]:
    addresses: dict[SessionId, SessionAddress] = {}
    for session_id in {row.session_id for row in rows}:
        addresses[session_id] = (await find_session(store, session_id)).address
    return addresses


async def _show(project: Project, given: str, json: bool) -> None:
    out = Terminal(project.env)
    async with opened_store(project) as store:
        row = await find_dispatch(store, given)
        around = await _surroundings(store, row)
    blocked = blocked_by(row, around)
    if json:
        out.say_json(as_json(dispatch_detail(row, around.session.address, around.replies, blocked)))
    else:
        print_dispatch(out, dispatch_detail(row, around.session.address, around.replies, blocked), around.now)


async def _surroundings(store: Store, row: Dispatch) -> Surroundings:
    session = await find_session(store, row.session_id)
    unsettled = await unsettled_of(store, session)
    unsent = [
        item
        for status in ("sending", "pending")
        for item in await store.views.outbox(session_id=session.id, status=status, limit=1)
    ]
    return Surroundings(
        session=session,
        head=unsettled[0] if unsettled else None,
        workers=await store.views.workers(),
        now=SystemClock().now(),
        parked_for=await _parked_for(store, row),
        replies=await store.views.outbox(dispatch_id=row.id, limit=1_000),
        next_reply=min(unsent, key=lambda item: item.position, default=None),
    )


async def _parked_for(store: Store, row: Dispatch) -> str:
    """Return why the dispatch was parked last, if its latest events tell."""
    for event in reversed(await store.events.read(row.id, max(row.event_seq - LATEST_EVENTS, 0), LATEST_EVENTS)):
        parked = decode_event(event.data)
        if isinstance(parked, DispatchParked):
            return f"{parked.reason}: {parked.message}" if parked.message else parked.reason
    return ""


async def _abort(project: Project, given: str) -> None:
    out = Terminal(project.env)
    async with opened_store(project) as store:
        row = await find_dispatch(store, given)
        asked = await store.ledger.request_abort(row.id) or row
    if asked.status == "aborted":
        out.say(f"{asked.id} is aborted.")
    elif asked.status in TERMINAL:
        raise InvalidInputError(
            f"Dispatch {asked.id} is {asked.status} already.",
            cause="An outcome never changes.",
            fix="Nothing is left to abort.",
        )
    else:
        out.say(f"{asked.id} will be aborted; it is {asked.status} now.")


async def _replay(project: Project, given: str) -> None:
    clock = SystemClock()
    ids = Ids(clock)
    async with opened_store(project) as store:
        row = await find_dispatch(store, given)
        if row.status not in TERMINAL:
            raise InvalidInputError(
                f"Dispatch {row.id} is {row.status}.",
                cause="Only a settled dispatch can be run once more.",
                fix=f"Wait for it, or abort it: `pyflue dispatches abort {row.id}`.",
            )
        address = (await find_session(store, row.session_id)).address
        new = ids.dispatch()
        # Nothing to ring with here: a worker finds due work by itself within a second.
        admitter = Admitter(store, LocalBell(), clock, ids, project.settings.queue.limits)
        key = DedupeKey("replay", new)
        receipt = await admitter.admit(Admission(new, address, row.input, (key,), replay_of=row.id))
    Terminal(project.env).say(receipt.dispatch_id)
