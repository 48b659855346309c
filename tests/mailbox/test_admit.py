"""Admission: durable before it is said, together with whoever waits, once however often it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import Raw

from pyflue.bells.local import LocalBell
from pyflue.channels.protocol import InboundEvent
from pyflue.clock import SystemClock
from pyflue.config import ChannelSettings
from pyflue.dispatches import (
    Admission,
    DedupeKey,
    DispatchInput,
    QueueLimits,
    Receipt,
    Refusal,
    SessionAddress,
)
from pyflue.errors import (
    CommitUnknownError,
    IdempotencyConflictError,
    QueueFullError,
    StoreUnavailableError,
)
from pyflue.ids import Ids, SessionId
from pyflue.mailbox import admit
from pyflue.mailbox.admit import Admitter, admission_of
from pyflue.stores.memory import MemoryStore
from pyflue.stores.postgres import PostgresStore
from pyflue.stores.protocol import DispatchQuery
from tests.waiting import until

IDS = Ids()
ADDRESS = SessionAddress("triage", "thread-1")


class Rings:
    """A bell that remembers what was rung."""

    def __init__(self) -> None:
        self.rung: list[SessionId] = []

    def ring(self, session_id: SessionId) -> None:
        self.rung.append(session_id)


class WatchedLedger:
    """The memory ledger, whose door a test can hold shut or make fail before or after the commit."""

    def __init__(self, store: MemoryStore) -> None:
        self._ledger = store.ledger
        self.batches: list[int] = []
        self.open = asyncio.Event()
        self.open.set()
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.poison: str | None = None
        self.stubborn = False  # refuse to be cancelled

    async def admit(self, admissions: Sequence[Admission], limits: QueueLimits) -> list[Receipt | Refusal]:
        self.batches.append(len(admissions))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            if self.stubborn:
                await self.open.wait()
            raise
        if any(admission.input.text == self.poison for admission in admissions):
            raise ValueError("cannot be stored")
        if self.before:
            raise self.before.pop(0)
        answers = await self._ledger.admit(admissions, limits)
        if self.after:
            raise self.after.pop(0)
        return answers


class Front:
    def __init__(self, limits: QueueLimits | None = None) -> None:
        self.store = MemoryStore()
        self.ledger = WatchedLedger(self.store)
        self.store.ledger = self.ledger  # type: ignore[assignment]
        self.bell = Rings()
        self.admitter = Admitter(self.store, self.bell, SystemClock(), IDS, limits or QueueLimits())  # type: ignore[arg-type]

    async def dispatches(self) -> int:
        return len(await self.store.views.dispatches(DispatchQuery(limit=1_000)))


@pytest.fixture
def front() -> Front:
    return Front()


def admission(key: str, text: str = "hello", instance: str = "thread-1", body_hash: bytes | None = None) -> Admission:
    address = SessionAddress("triage", instance)
    return Admission(IDS.dispatch(), address, DispatchInput(text), (DedupeKey("test", key),), body_hash)


async def test_a_receipt_names_the_dispatch_that_is_now_queued(front: Front) -> None:
    asked = admission("k1")

    receipt = await front.admitter.admit(asked)

    stored = await front.store.views.dispatch(receipt.dispatch_id)
    assert receipt.dispatch_id == asked.dispatch_id
    assert not receipt.duplicate
    assert stored is not None
    assert stored.status == "queued"
    assert stored.accepted_at == receipt.accepted_at


async def test_the_bell_is_rung_after_the_commit_and_not_for_a_duplicate(front: Front) -> None:
    front.ledger.open.clear()
    task = asyncio.create_task(front.admitter.admit(admission("k1")))
    await until(lambda: front.ledger.batches == [1])
    assert front.bell.rung == []

    front.ledger.open.set()
    await task
    again = await front.admitter.admit(admission("k1"))

    assert again.duplicate
    assert front.bell.rung == [ADDRESS.id]


async def test_callers_that_wait_together_are_committed_together_and_rung_once_a_session(front: Front) -> None:
    front.ledger.open.clear()
    tasks = [asyncio.create_task(front.admitter.admit(admission(f"k{n}"))) for n in range(700)]
    await until(lambda: len(front.ledger.batches) == 2)
    front.ledger.open.set()

    receipts = await asyncio.gather(*tasks)

    assert front.ledger.batches == [256, 256, 188]
    assert len({receipt.dispatch_id for receipt in receipts}) == 700
    assert len(front.bell.rung) == 3


async def test_at_most_two_batches_are_in_flight(front: Front) -> None:
    front.ledger.open.clear()
    tasks = []
    for n in range(10):
        tasks.append(asyncio.create_task(front.admitter.admit(admission(f"k{n}"))))
        for _ in range(5):
            await asyncio.sleep(0)

    assert front.ledger.batches == [1, 1]

    front.ledger.open.set()
    await asyncio.gather(*tasks)
    assert front.ledger.batches == [1, 1, 8]


async def test_the_same_event_asked_by_many_at_once_becomes_one_dispatch(front: Front) -> None:
    receipts = await asyncio.gather(*(front.admitter.admit(admission("same")) for _ in range(100)))

    assert len({receipt.dispatch_id for receipt in receipts}) == 1
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    assert await front.dispatches() == 1


async def test_a_cancelled_caller_leaves_the_others_of_its_batch_alone(front: Front) -> None:
    front.ledger.open.clear()
    leaving = asyncio.create_task(front.admitter.admit(admission("leaving")))
    staying = asyncio.create_task(front.admitter.admit(admission("staying")))
    await until(lambda: front.ledger.batches == [2])

    leaving.cancel()
    front.ledger.open.set()
    receipt = await staying

    assert not receipt.duplicate
    assert await front.dispatches() == 2
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_another_body_under_the_same_key_is_a_conflict_that_names_the_first(front: Front) -> None:
    first = await front.admitter.admit(admission("k1", body_hash=b"a"))

    with pytest.raises(IdempotencyConflictError) as conflict:
        await front.admitter.admit(admission("k1", body_hash=b"b"))

    assert conflict.value.dispatch_id == first.dispatch_id


async def test_a_full_mailbox_refuses_without_a_trace() -> None:
    front = Front(QueueLimits(per_session=2))
    for n in range(2):
        await front.admitter.admit(admission(f"k{n}"))

    with pytest.raises(QueueFullError, match="session is full"):
        await front.admitter.admit(admission("k3"))
    await front.admitter.admit(admission("k4", instance="thread-2"))

    assert await front.dispatches() == 3


async def test_a_full_deployment_refuses() -> None:
    front = Front(QueueLimits(per_deployment=1))
    await front.admitter.admit(admission("k1"))

    with pytest.raises(QueueFullError, match="deployment is full"):
        await front.admitter.admit(admission("k2", instance="thread-2"))


async def test_a_store_that_cannot_be_reached_fails_every_caller_at_once(front: Front) -> None:
    front.ledger.before = [StoreUnavailableError("refused")]

    answers = await asyncio.gather(
        *(front.admitter.admit(admission(f"k{n}")) for n in range(3)), return_exceptions=True
    )

    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
    assert front.bell.rung == []
    assert not (await front.admitter.admit(admission("k1"))).duplicate


@pytest.mark.parametrize("committed", [True, False])
async def test_an_unknown_commit_is_asked_again_and_counts_once(front: Front, committed: bool) -> None:
    (front.ledger.after if committed else front.ledger.before).append(CommitUnknownError("reset"))
    asked = admission("k1")

    receipt = await front.admitter.admit(asked)

    assert receipt.dispatch_id == asked.dispatch_id
    assert not receipt.duplicate
    assert front.bell.rung == [ADDRESS.id]
    assert await front.dispatches() == 1


async def test_an_unknown_commit_of_work_without_a_key_counts_once_too(front: Front) -> None:
    front.ledger.after = [CommitUnknownError("reset"), StoreUnavailableError("starting"), CommitUnknownError("reset")]

    receipt = await front.admitter.dispatch(ADDRESS, DispatchInput("hello"))

    assert not receipt.duplicate
    assert await front.dispatches() == 1


async def test_a_commit_that_stays_unknown_is_given_up(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admit, "RETRY_FOR", 0.0)
    front.ledger.after = [CommitUnknownError("reset")]

    with pytest.raises(CommitUnknownError, match="same idempotency key"):
        await front.admitter.admit(admission("k1"))

    assert (await front.admitter.admit(admission("k1"))).duplicate


async def test_a_store_that_never_answers_is_given_up(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admit, "STORE_TIMEOUT", 0.01)
    front.ledger.open.clear()

    with pytest.raises(CommitUnknownError):
        await front.admitter.admit(admission("k1"))


async def test_nobody_waits_for_a_store_that_takes_its_time_to_be_cancelled(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Psycopg spends seconds on asking a server that does not answer to stop."""
    monkeypatch.setattr(admit, "STORE_TIMEOUT", 0.01)
    front.ledger.open.clear()
    front.ledger.stubborn = True

    async with asyncio.timeout(10):
        waiting = [front.admitter.admit(admission(f"k{n}")) for n in range(4)]
        answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in answers] == [CommitUnknownError] * 4
    assert not front.ledger.open.is_set()
    front.ledger.open.set()
    await front.admitter.close()


async def test_one_admission_that_cannot_be_stored_does_not_fail_the_others(front: Front) -> None:
    front.ledger.poison = "poison"

    answers = await asyncio.gather(
        front.admitter.admit(admission("k1")),
        front.admitter.admit(admission("k2", text="poison")),
        front.admitter.admit(admission("k3")),
        return_exceptions=True,
    )

    assert [type(answer) for answer in answers] == [Receipt, ValueError, Receipt]


async def test_too_many_waiting_are_refused_before_they_wait(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admit, "WAITING", 2)
    front.ledger.open.clear()
    tasks = []
    for n in range(4):
        tasks.append(asyncio.create_task(front.admitter.admit(admission(f"k{n}"))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(StoreUnavailableError):
        await front.admitter.admit(admission("one too many"))

    front.ledger.open.set()
    await asyncio.gather(*tasks)


async def test_closing_waits_for_what_was_asked(front: Front) -> None:
    front.ledger.open.clear()
    task = asyncio.create_task(front.admitter.admit(admission("k1")))
    await until(lambda: front.ledger.batches == [1])
    closing = asyncio.create_task(front.admitter.close())
    await asyncio.sleep(0)
    assert not closing.done()

    front.ledger.open.set()
    await closing

    assert task.done()
    assert not (await task).duplicate


async def test_a_callers_own_key_makes_the_same_work_a_duplicate_and_other_work_a_conflict(front: Front) -> None:
    key = DedupeKey("app", "order-7")
    first = await front.admitter.dispatch(ADDRESS, DispatchInput("ship it", attributes={"a": "1", "b": "2"}), key)

    again = await front.admitter.dispatch(ADDRESS, DispatchInput("ship it", attributes={"b": "2", "a": "1"}), key)
    with pytest.raises(IdempotencyConflictError):
        await front.admitter.dispatch(ADDRESS, DispatchInput("cancel it"), key)

    assert again == Receipt(first.dispatch_id, first.accepted_at, duplicate=True)


def test_an_event_becomes_a_signal_with_its_reply_address() -> None:
    event = InboundEvent(
        instance_id="github:1:o/r#1",
        keys=(DedupeKey("github:1", "delivery:abc"),),
        text="please look",
        attributes={"sender": "ada"},
        destination=Raw(b'{"number":1}'),
        body_hash=b"h",
    )

    asked = admission_of(event, "github", ChannelSettings(agent="triage", failure_reply="sorry"), IDS, "00-ab-cd-01")

    assert asked.address == SessionAddress("triage", "github:1:o/r#1", "default")
    assert asked.keys == event.keys
    assert asked.body_hash == b"h"
    assert asked.traceparent == "00-ab-cd-01"
    assert asked.input.role == "signal"
    assert asked.input.attributes == {"sender": "ada"}
    assert asked.input.reply is not None
    assert asked.input.reply.channel == "github"
    assert bytes(asked.input.reply.destination) == b'{"number":1}'
    assert (asked.input.reply.mode, asked.input.reply.failure_reply) == ("auto", "sorry")


def test_a_channel_that_never_replies_gives_no_reply_address() -> None:
    event = InboundEvent("i", (), "t", {}, Raw(b"{}"))

    assert admission_of(event, "standard", ChannelSettings(agent="a", reply="none"), IDS).input.reply is None


async def test_two_processes_asked_the_same_at_once_agree_on_one_dispatch_each(fresh_postgres_dsn: str) -> None:
    stores = [PostgresStore(fresh_postgres_dsn, pool=3) for _ in range(2)]
    await stores[0].migrate()
    for store in stores:
        await store.open()
    fronts = [Admitter(store, LocalBell(), SystemClock(), IDS, QueueLimits()) for store in stores]

    receipts = await asyncio.gather(
        *(front.admit(admission(f"k{n}", instance=f"thread-{n % 7}")) for n in range(150) for front in fronts)
    )

    first = [receipt for receipt in receipts if not receipt.duplicate]
    assert len({receipt.dispatch_id for receipt in first}) == len(first) == 150
    assert {receipt.dispatch_id for receipt in receipts} == {receipt.dispatch_id for receipt in first}
    assert len(await stores[0].views.dispatches(DispatchQuery(limit=1_000))) == 150
    for store in stores:
        await store.close()
