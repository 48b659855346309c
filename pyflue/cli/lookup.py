"""From what an operator typed to the row it names."""

from __future__ import annotations

from pyflue.dispatches import Dispatch
from pyflue.errors import UnknownIdError
from pyflue.ids import DispatchId, OutboxId, SessionId, kind_of
from pyflue.stores.protocol import DispatchQuery, SessionRow, Store


async def find_dispatch(store: Store, given: str) -> Dispatch:
    """Return the dispatch of that id, or the one whose reply has that outbox id.

    Raises:
        UnknownIdError: there is none.
    """
    found: Dispatch | None = None
    match kind_of(given):
        case "dispatch":
            found = await store.views.dispatch(DispatchId(given))
        case "outbox":
            item = await store.views.outbox_item(OutboxId(given))
            found = item and await store.views.dispatch(item.dispatch_id)
        case _:
            pass
    if found is None:
        raise UnknownIdError(given, "dispatch")
    return found


async def find_session(store: Store, given: str) -> SessionRow:
    """Return the session of that id.

    Raises:
        UnknownIdError: there is none.
    """
    row = await store.views.session(SessionId(given)) if kind_of(given) == "session" else None
    if row is None:
        raise UnknownIdError(given, "session")
    return row


async def unsettled_of(store: Store, row: SessionRow) -> list[Dispatch]:
    """Return the session's dispatches without an outcome, in mailbox order. (More than the row counts may have come.)"""
    found: dict[DispatchId, Dispatch] = {}
    for status in ("queued", "running", "waiting"):
        query = DispatchQuery(status=status, session_id=row.id, limit=row.unsettled + 10)
        found |= {dispatch.id: dispatch for dispatch in await store.views.dispatches(query)}
    return sorted(found.values(), key=lambda dispatch: dispatch.position)
