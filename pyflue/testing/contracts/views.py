"""What a store promises about what operators read, and about being opened and closed."""

from __future__ import annotations

from pyflue.dispatches import Dispatch
from pyflue.events import ReplyUndeliverable
from pyflue.stores.protocol import DispatchQuery, SessionQuery, Store
from pyflue.testing.contracts.stage import LEASE_TIME, MINUTE, SECOND, OtherStore, Scene, StoreContract, said


def ids(rows: list[Dispatch]) -> list[str]:
    return [row.id for row in rows]


class ViewsContract(StoreContract):
    """``Views``."""

    async def test_what_does_not_exist_is_none_or_nothing(self, scene: Scene) -> None:
        views = scene.store.views

        assert await views.dispatch(scene.ids.dispatch()) is None
        assert await views.session(scene.session()) is None
        assert await views.outbox_item(scene.ids.outbox()) is None
        assert await views.dispatches(DispatchQuery()) == []
        assert await views.sessions(SessionQuery()) == []
        assert await views.outbox() == []
        assert await views.workers() == []

    async def test_dispatches_are_paged_newest_first(self, scene: Scene) -> None:
        admitted: list[str] = []
        for thread in ("one", "two", "one", "two", "one"):
            admitted.append((await scene.admit(thread)).dispatch_id)
            scene.clock.advance(SECOND)

        first = await scene.store.views.dispatches(DispatchQuery(limit=2))
        second = await scene.store.views.dispatches(DispatchQuery(limit=2, before=first[-1].id))
        third = await scene.store.views.dispatches(DispatchQuery(limit=2, before=second[-1].id))

        assert ids(first + second + third) == admitted[::-1]

    async def test_dispatches_are_found_by_status_agent_and_session(self, scene: Scene) -> None:
        done = await scene.start("one")
        await done.settle("failed")
        scene.clock.advance(SECOND)
        queued = await scene.admit("one")
        scene.clock.advance(SECOND)
        other = await scene.admit("two", agent="other")

        async def found(query: DispatchQuery) -> list[str]:
            return ids(await scene.store.views.dispatches(query))

        assert await found(DispatchQuery(status="failed")) == [done.dispatch_id]
        assert await found(DispatchQuery(agent="other")) == [other.dispatch_id]
        assert await found(DispatchQuery(session_id=scene.session("one"))) == [queued.dispatch_id, done.dispatch_id]
        assert await found(DispatchQuery(status="queued", agent="echo")) == [queued.dispatch_id]
        assert await found(DispatchQuery(status="queued", session_id=scene.session("two"))) == []

    async def test_a_session_shows_its_address_its_counters_and_its_holder(self, scene: Scene) -> None:
        created = scene.clock.now()
        turn = await scene.start()
        await scene.admit()
        scene.clock.advance(SECOND)
        await turn.append(said("x"), said("y"))

        row = await scene.store.views.session(scene.session())

        assert row is not None
        assert (row.id, row.address) == (scene.session(), scene.address())
        assert (row.head, row.mailbox_head, row.unsettled) == (2, 2, 2)
        assert (row.lease_owner, row.lease_token, row.due_at) == (turn.lease.worker_id, 1, created)
        assert (row.created_at, row.updated_at) == (created, scene.clock.now())

    async def test_sessions_are_paged_by_id_and_found_by_agent(self, scene: Scene) -> None:
        for n in range(5):
            await scene.admit(f"t{n}", agent="echo")
        await scene.admit("t0", agent="other")

        pages = [await scene.store.views.sessions(SessionQuery(agent="echo", limit=3))]
        pages.append(await scene.store.views.sessions(SessionQuery(agent="echo", after=pages[0][-1].id, limit=3)))

        found = [row.id for page in pages for row in page]
        assert found == sorted(scene.session(f"t{n}") for n in range(5))
        everything = [row.id for row in await scene.store.views.sessions(SessionQuery())]
        assert everything == sorted(everything)
        assert len(everything) == 6

    async def test_addresses_of_odd_characters_come_back_as_given(self, scene: Scene) -> None:
        thread = "slack:v1:T1/C1#1.0 \u2603 'quoted' \"twice\" %s $1 ; --"
        await scene.admit(thread)

        row = await scene.store.views.session(scene.session(thread))

        assert row is not None
        assert row.address == scene.address(thread)

    async def test_replies_are_listed_in_their_order_and_found_by_session_dispatch_and_status(
        self, scene: Scene
    ) -> None:
        one, two = await scene.start("one"), await scene.start("two")
        await one.append(outbox=(scene.draft("a"), scene.draft("b"), scene.draft("c")))
        await two.append(outbox=(scene.draft("d"),))
        item = await scene.store.outbox.claim(scene.session("one"), one.lease.worker_id)
        assert item is not None
        gone = ReplyUndeliverable(item.id, "chat", "gone")
        await scene.store.outbox.undeliverable(item, one.lease.worker_id, "gone", gone)

        views = scene.store.views
        assert [i.body for i in await views.outbox(session_id=scene.session("one"))] == ["a", "b", "c"]
        assert [i.body for i in await views.outbox(dispatch_id=two.dispatch_id)] == ["d"]
        assert [i.body for i in await views.outbox(status="undeliverable")] == ["a"]
        assert [i.body for i in await views.outbox(status="sending")] == ["b"]
        assert len(await views.outbox(limit=2)) == 2
        keys = [(i.session_id, i.position) for i in await views.outbox()]
        assert keys == sorted(keys)

    async def test_workers_are_listed_live_ones_first_with_what_they_hold(self, scene: Scene) -> None:
        dead, draining, live = await scene.worker(), await scene.worker(), await scene.worker()
        await scene.start("one", live)
        await scene.start("two", live)
        await scene.start("three", draining)
        await scene.store.fleet.drain(draining)
        await scene.store.fleet.retire(dead)

        rows = await scene.store.views.workers()

        assert [(row.id, row.status, row.sessions) for row in rows] == [
            (live, "live", 2),
            (draining, "draining", 1),
            (dead, "dead", 0),
        ]

    async def test_totals_count_unsettled_work_replies_workers_and_how_long_work_waits(self, scene: Scene) -> None:
        empty = await scene.store.views.totals()
        assert (empty.due_sessions, empty.oldest_due_seconds) == (0, 0.0)
        turn = await scene.start("held")
        await turn.append(outbox=(scene.draft(), scene.draft()))
        await scene.store.outbox.claim(scene.session("held"), turn.lease.worker_id)
        await scene.admit("waits longest")
        scene.clock.advance(MINUTE)
        await scene.admit("waits")
        await scene.store.fleet.heartbeat(turn.lease.worker_id, LEASE_TIME)

        totals = await scene.store.views.totals()

        assert (totals.dispatches.get("running"), totals.dispatches.get("queued")) == (1, 2)
        assert (totals.outbox.get("sending"), totals.outbox.get("pending")) == (1, 1)
        assert totals.workers.get("live") == 1
        assert (totals.due_sessions, totals.oldest_due_seconds) == (2, 60.0)

    async def test_what_one_host_changed_another_sees(self, scene: Scene, other_store: OtherStore) -> None:
        turn = await scene.start()
        other = await other_store()

        running = await other.views.dispatch(turn.dispatch_id)
        await turn.settle()
        settled = await other.views.dispatch(turn.dispatch_id)

        assert running is not None
        assert running.status == "running"
        assert settled == await scene.dispatch(turn.dispatch_id)
        assert settled is not None
        assert settled.status == "completed"


class LifecycleContract(StoreContract):
    """``Store.open``, ``close``, ``migrate`` and ``ready``."""

    async def test_an_opened_store_is_ready(self, store: Store) -> None:
        await store.ready()

    async def test_migrating_an_up_to_date_store_applies_nothing_and_keeps_everything(self, scene: Scene) -> None:
        receipt = await scene.admit()

        assert await scene.store.migrate() == []

        assert (await scene.dispatch(receipt.dispatch_id)).status == "queued"

    async def test_closing_twice_is_no_error(self, store: Store) -> None:
        await store.close()
        await store.close()
