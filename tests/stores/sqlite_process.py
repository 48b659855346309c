"""Run by tests/stores/test_sqlite_file.py: one process that uses a SQLite store, to be raced against or killed.

``admit PATH THREAD``: admit without end, 16 callers, and print each receipt's dispatch id once it is there.
``keys PATH NAME``: wait for a line on stdin, admit keys 0 to 99, and print ``number dispatch_id new|duplicate`` lines.
``full PATH``: admit until the disk has no more room, then with room again; print every receipt's dispatch id.
``hold PATH``: register a worker, claim the session ``echo/held``, print the worker's id, and wait to be killed.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from datetime import timedelta

from pyflue.clock import SystemClock
from pyflue.dispatches import Admission, DedupeKey, DispatchInput, QueueLimits, Receipt, SessionAddress, WorkerRow
from pyflue.ids import Ids
from pyflue.stores.sqlite import SQLiteStore

IDS = Ids()


async def admit(store: SQLiteStore, key: str, thread: str) -> Receipt:
    admission = Admission(
        IDS.dispatch(), SessionAddress("echo", thread), DispatchInput("hello"), (DedupeKey("test", key),)
    )
    [receipt] = await store.ledger.admit([admission], QueueLimits(per_session=10**6))
    assert isinstance(receipt, Receipt)
    return receipt


async def admit_without_end(store: SQLiteStore, thread: str) -> None:
    async def caller(number: int) -> None:
        turn = 0
        while True:
            turn += 1
            receipt = await admit(store, f"{thread}-{number}-{turn}", f"{thread}-{number}")
            print(receipt.dispatch_id, flush=True)

    await asyncio.gather(*(caller(number) for number in range(16)))


async def admit_keys(store: SQLiteStore, name: str) -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

    receipts = await asyncio.gather(*(admit(store, str(number), f"{number}") for number in range(100)))

    for number, receipt in enumerate(receipts):
        print(number, receipt.dispatch_id, "duplicate" if receipt.duplicate else "new", flush=True)


async def admit_on_a_full_disk(store: SQLiteStore) -> None:
    room, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most))
    rounds = (
        await asyncio.gather(
            *(admit(store, f"{turn}-{number}", "full") for number in range(20)), return_exceptions=True
        )
        for turn in range(30)
    )
    answers = [answer async for answers in rounds for answer in answers]
    refusals = {type(answer).__name__ for answer in answers if isinstance(answer, BaseException)}
    assert refusals <= {"StoreUnavailableError", "CommitUnknownError"}, refusals
    assert refusals, "the disk was never full"
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))

    answers.append(await admit(store, "room again", "full"))

    for answer in answers:
        if isinstance(answer, Receipt):
            print(answer.dispatch_id)


async def hold(store: SQLiteStore) -> None:
    now = SystemClock().now()
    worker = WorkerRow(IDS.worker(), "host", 1, "live", ("echo",), now, now, now)
    await store.fleet.register(worker, timedelta(hours=1))
    await admit(store, "held", "held")
    lease = await store.ledger.claim(SessionAddress("echo", "held").id, worker.id, frozenset({"echo"}))
    assert lease is not None
    print(worker.id, flush=True)
    await asyncio.Event().wait()


async def main(mode: str, path: str, *rest: str) -> None:
    store = SQLiteStore(path)
    await store.open()
    if mode == "admit":
        await admit_without_end(store, *rest)
    elif mode == "keys":
        await admit_keys(store, *rest)
    elif mode == "full":
        await admit_on_a_full_disk(store)
    else:
        await hold(store)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
