"""``pyflue logs``."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer
from msgspec import Struct

from pyflue.bells.protocol import Bell
from pyflue.cli.event_lines import json_line, pretty_line
from pyflue.cli.lookup import find_dispatch, find_session
from pyflue.cli.opening import ConfigOption, JsonOption, opened_store, run
from pyflue.cli.terminal import Terminal, moment, plain
from pyflue.config import Project, load_project
from pyflue.dispatches import TERMINAL, Dispatch, Status
from pyflue.errors import StoreUnavailableError
from pyflue.ids import DispatchId, SessionId, kind_of
from pyflue.runtime import default_bell, read_events
from pyflue.stores.protocol import DispatchQuery, SessionRow, Store

EXIT_CODES: Final[dict[Status, int]] = {"failed": 3, "aborted": 4}
"""What the command says of a dispatch by its exit code; any other status is 0."""

PAGE: Final = 200
STORE_PAUSE: Final = 1.0  # seconds before a store that does not answer is asked again, while following


class _Wanted(Struct, frozen=True):
    """How to print. ``after``: events numbered above it."""

    as_json: bool
    follow: bool
    after: int = 0


class _Reader:
    """Prints streams from one store."""

    def __init__(self, store: Store, bell: Bell, out: Terminal, wanted: _Wanted) -> None:
        self._store = store
        self._bell = bell
        self._out = out
        self._wanted = wanted

    async def dispatch(self, row: Dispatch, session: SessionRow | None) -> Status:
        """Print one dispatch's events; return its status at the end."""
        if not self._wanted.as_json:
            self._out.say(self._title(row, session))
        after, lost = self._wanted.after, False
        while True:
            try:
                async for event in read_events(self._store, self._bell, row.id, after, follow=self._wanted.follow):
                    after = event.seq
                    if self._wanted.as_json:
                        self._out.say_json(json_line(event))
                    else:
                        self._out.say(pretty_line(event, self._out))
                ended = await self._store.views.dispatch(row.id)
                return ended.status if ended is not None else row.status
            except StoreUnavailableError:
                if not self._wanted.follow:
                    raise
                if not lost:
                    self._out.note("The store does not answer; trying again.")
                lost = True
                await asyncio.sleep(STORE_PAUSE)

    async def session(self, session: SessionRow) -> Status:
        """Print the events of all its dispatches in mailbox order; return the last one's status."""
        position: int = 0
        status: Status = "completed"
        while new := await self._behind(session.id, position):
            for number, dispatch_id in new:
                row = await find_dispatch(self._store, dispatch_id)
                position, status = number, await self.dispatch(row, session)
            if not self._wanted.follow:
                break
        return status

    async def _behind(self, session_id: SessionId, position: int) -> list[tuple[int, DispatchId]]:
        """List the session's dispatches behind a position, in order."""
        found: list[tuple[int, DispatchId]] = []
        before: DispatchId | None = None
        while True:
            query = DispatchQuery(session_id=session_id, before=before, limit=PAGE)
            page = await self._store.views.dispatches(query)
            new = [(row.position, row.id) for row in page if row.position > position]
            found += new
            if len(page) < PAGE or not new:
                return sorted(found)
            before = page[-1].id

    def _title(self, row: Dispatch, session: SessionRow | None) -> str:
        of = ""
        if session is not None:
            address = session.address
            of = " ".join(f"{plain(part)}" for part in (address.agent, address.instance_id, address.name))
        accepted = self._out.paint(f"accepted {moment(row.accepted_at)} UTC", "dim")
        return f"{self._out.paint(row.id, 'bold')}  {of}  {accepted}"


def command(
    id: Annotated[str, typer.Argument(help="A dispatch (dsp_…), a session (ses_…) or a reply (out_…).")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until it is settled and its replies are out.")
    ] = False,
    json: JsonOption = False,
    start: Annotated[int, typer.Option("--from", min=1, help="The first event number; of one dispatch only.")] = 1,
    config: ConfigOption = "pyflue.toml",
) -> None:
    """Print the events of a dispatch, or of all dispatches of a session in order. Works on any host.

    Exit code: 0 completed or not settled yet, 3 failed, 4 aborted; of a session, its last dispatch counts.
    """
    if start > 1 and kind_of(id) == "session":
        raise typer.BadParameter("--from numbers the events of one dispatch; a session has many.")
    status = run(_logs(load_project(config), id, _Wanted(json, follow, start - 1)))
    raise typer.Exit(EXIT_CODES.get(status, 0))


async def _logs(project: Project, given: str, wanted: _Wanted) -> Status:
    bell = default_bell(project)
    out = Terminal(project.env)
    async with opened_store(project) as store:
        await bell.open()
        try:
            reader = _Reader(store, bell, out, wanted)
            if kind_of(given) == "session":
                status = await reader.session(await find_session(store, given))
            else:
                row = await find_dispatch(store, given)
                status = await reader.dispatch(row, await store.views.session(row.session_id))
        finally:
            await bell.close()
    if status not in TERMINAL:
        out.note(f"It is {status}; `pyflue logs -f {given}` goes on, `pyflue dispatches show` says what it waits for.")
    return status
