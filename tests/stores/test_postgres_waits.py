"""What a statement does that had to wait for a row: it goes by what it finds then, not by what it saw before.

Each test holds a row in a transaction of its own, waits until the statement under test waits for it, changes what it
likes, and commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import LiteralString

import psycopg
import pytest

from pyflue.clock import SystemClock
from pyflue.errors import LeaseLost
from pyflue.events import ReplySent
from pyflue.stores.postgres import PostgresStore
from pyflue.testing.clock import FakeClock
from pyflue.testing.contracts.stage import AGENTS, Scene, said
from tests.services import fresh_database

WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
TAKE_OVER = "update sessions set lease_token = lease_token + 1, lease_owner = 'wrk_other'"


@pytest.fixture(scope="module")
def dsn(postgres_server: str) -> Iterator[str]:
    with fresh_database(postgres_server) as dsn:
        asyncio.run(PostgresStore(dsn).migrate())
        yield dsn


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresStore]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("truncate sessions, entries, admissions, dispatches, events, outbox, steps, workers")
    store = PostgresStore(dsn, pool=6)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def scene(store: PostgresStore) -> Scene:
    clock = FakeClock(SystemClock().now())  # the store goes by the server's time
    return Scene(store, clock)


class Stall:
    """Holds rows until the block ends, then commits."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self._connection = connection

    async def execute(self, statement: LiteralString, *values: object) -> None:
        await self._connection.execute(statement, values)

    async def until_waited_for(self, number: int = 1) -> None:
        """Return when so many statements wait for what is held."""
        async with asyncio.timeout(20):
            while True:
                async with await psycopg.AsyncConnection.connect(self._connection.info.dsn, autocommit=True) as looking:
                    row = await (await looking.execute(WAITING)).fetchone()
                if row == (number,):
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def stall(dsn: str, statement: LiteralString, *values: object) -> AsyncIterator[Stall]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        held = Stall(connection)
        await held.execute(statement, *values)
        yield held


async def test_a_claim_waits_for_a_row_that_an_admission_holds(scene: Scene, dsn: str) -> None:
    await scene.admit()
    worker = await scene.worker()

    async with stall(dsn, "update sessions set mailbox_head = mailbox_head + 1") as held:
        claiming = asyncio.create_task(scene.claim(worker=worker))
        await held.until_waited_for()

    lease = await claiming
    assert lease is not None
    assert (await scene.store.ledger.mailbox(lease)).seen == 2


async def test_rescue_leaves_rows_alone_that_somebody_holds(scene: Scene, dsn: str) -> None:
    worker = await scene.worker()
    for thread in ("held", "free"):
        turn = await scene.start(thread, worker)
        await turn.append(outbox=(scene.draft(thread),))
        await turn.settle()
        await turn.release()
        await scene.admit(thread)

    async with asyncio.timeout(5), stall(dsn, "select 1 from sessions where instance_id = 'held' for update") as held:
        await held.execute("select 1 from outbox where body = 'held' for update")
        leases = await scene.store.ledger.claim_due(worker, AGENTS, 10)
        items = await scene.store.outbox.claim_due(worker, 10)

    assert [lease.address.instance_id for lease in leases] == ["free"]
    assert [item.body for item in items] == ["free"]


async def test_sessions_of_the_dead_that_somebody_holds_are_left_to_the_next_round(scene: Scene, dsn: str) -> None:
    worker = await scene.worker()
    for thread in ("held", "free"):
        await scene.start(thread, worker)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("update workers set status = 'dead'")

    async with asyncio.timeout(5), stall(dsn, "select 1 from sessions where instance_id = 'held' for update"):
        freed = await scene.store.fleet.free(10)

    assert freed == [scene.session("free")]
    assert await scene.store.fleet.free(10) == [scene.session("held")]


async def test_what_waited_while_its_session_was_taken_over_writes_nothing(scene: Scene, dsn: str) -> None:
    turn = await scene.start()

    async with stall(dsn, TAKE_OVER) as held:
        late = asyncio.gather(
            turn.append(said("late")),
            turn.park(),
            turn.settle("completed", scene.draft()),
            scene.store.steps.put(turn.lease, "call_1", "charge", b"1"),
            return_exceptions=True,
        )
        await held.until_waited_for(4)
        before = await scene.snapshot(turn)

    assert [type(answer) for answer in await late] == [LeaseLost] * 4
    assert (await scene.snapshot(turn))[1:] == before[1:]
    assert await scene.store.steps.get("call_1", "charge") is None


async def test_events_of_writers_who_waited_for_each_other_are_numbered_without_gaps(scene: Scene, dsn: str) -> None:
    turn = await scene.start()
    await turn.append(outbox=(scene.draft(),))
    item = await scene.store.outbox.claim(scene.session(), turn.lease.worker_id)
    assert item is not None

    async with stall(dsn, "select 1 from dispatches for update") as held:
        event = ReplySent(item.id, "chat", 0, "m1", 1)
        sending = asyncio.create_task(scene.store.outbox.sent(item, turn.lease.worker_id, "m1", event))
        await held.until_waited_for()
        settling = asyncio.create_task(turn.settle())
        await held.until_waited_for(2)
    await asyncio.gather(sending, settling)

    events = await scene.store.events.read(turn.dispatch_id)
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert {event.type for event in events[2:]} == {"dispatch.settled", "reply.sent"}


async def test_an_abort_that_waited_while_the_work_was_settled_leaves_it_as_it_is(scene: Scene, dsn: str) -> None:
    turn = await scene.start()

    async with stall(dsn, "select 1 from sessions for update") as held:
        settling = asyncio.create_task(turn.settle())
        await held.until_waited_for()
        aborting = asyncio.create_task(scene.store.ledger.request_abort(turn.dispatch_id))
        await held.until_waited_for(2)
    await settling

    aborted = await aborting
    assert aborted is not None
    assert (aborted.status, aborted.abort_requested_at) == ("completed", None)
    assert await scene.event_types(turn.dispatch_id) == ["dispatch.accepted", "dispatch.started", "dispatch.settled"]
