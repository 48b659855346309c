"""A process that does to a Postgres store what it is told, for the races in ``test_postgres_races.py``.

It reads one JSON object a line, ``{"id", "op", "args"}``, runs every one at once, and answers each with
``{"id", "ok"}`` or ``{"id", "error"}`` (an exception's class name).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Raw

from pyflue.dispatches import (
    Admission,
    DedupeKey,
    DispatchInput,
    DispatchResult,
    Lease,
    OutboxDraft,
    QueueLimits,
    Receipt,
    SessionAddress,
    WorkerRow,
)
from pyflue.entries import InputEntry
from pyflue.errors import CommitUnknownError, StoreUnavailableError
from pyflue.events import DispatchSettled
from pyflue.ids import DispatchId, Ids, SessionId
from pyflue.stores.postgres import PostgresStore
from pyflue.stores.protocol import Settlement, TurnWrite

AGENTS = frozenset({"echo"})
LIMITS = QueueLimits(per_session=100_000)


class Actor:
    def __init__(self, dsn: str) -> None:
        self.store = PostgresStore(dsn, pool=6)
        self.ids = Ids()
        self.worker = self.ids.worker()
        self.lease_time = timedelta(seconds=15)
        self.leases: dict[str, Lease] = {}
        self.seen: dict[str, int] = {}
        self.heads: dict[str, int] = {}
        self.beat_failures = 0
        self.stopped = asyncio.Event()
        self.jobs: set[asyncio.Task[Any]] = set()

    async def register(self, lease: float = 15.0, every: float = 0.0) -> str:
        """Register as a live worker; heartbeat ``every`` so many seconds if that is not 0."""
        now = datetime.now(UTC)
        self.lease_time = timedelta(seconds=lease)
        row = WorkerRow(self.worker, "here", os.getpid(), "live", ("echo",), now, now, now, self.ids.liveness_key())
        await self.store.fleet.register(row, self.lease_time)
        if every:
            self.jobs.add(asyncio.create_task(self._beat(every)))
        return self.worker

    async def _beat(self, every: float) -> None:
        while not self.stopped.is_set():
            await asyncio.sleep(every)
            try:
                await self.store.fleet.heartbeat(self.worker, self.lease_time)
            except StoreUnavailableError:
                self.beat_failures += 1

    async def beats_failed(self) -> int:
        return self.beat_failures

    async def beat(self) -> bool:
        return (await self.store.fleet.heartbeat(self.worker, self.lease_time)).alive

    async def retire(self) -> None:
        await self.store.fleet.retire(self.worker)

    async def disown(self) -> list[str]:
        """Give up every session this worker holds."""
        return list(await self.store.fleet.disown(self.worker, (), ()))

    async def reap(self, grace: float) -> list[str]:
        return list(await self.store.fleet.reap(timedelta(seconds=grace)))

    async def free(self) -> list[str]:
        return list(await self.store.fleet.free(1_000))

    async def claim(self, session: str) -> int | None:
        lease = await self.store.ledger.claim(SessionId(session), self.worker, AGENTS)
        if lease is None:
            return None
        self.leases[session] = lease
        self.heads[session] = lease.head
        return lease.token

    async def claim_each(self, sessions: Sequence[str]) -> list[str]:
        """Claim many at once; return those won."""
        tokens = await asyncio.gather(*(self.claim(session) for session in sessions))
        return [session for session, token in zip(sessions, tokens, strict=True) if token]

    async def claim_due(self, limit: int) -> list[str]:
        leases = await self.store.ledger.claim_due(self.worker, AGENTS, limit)
        for lease in leases:
            self.leases[lease.session_id] = lease
            self.heads[lease.session_id] = lease.head
        return [lease.session_id for lease in leases]

    async def adopt(self, session: str, token: int) -> None:
        """Act as if this process held the lease with that token."""
        head, _ = await self.store.journal.head(SessionId(session))
        address = SessionAddress("echo", "adopted")
        self.leases[session] = Lease(SessionId(session), address, self.worker, token, head, 0)
        self.heads[session] = head

    async def read(self, session: str) -> str | None:
        """Read the mailbox; remember the counter; return the head's id."""
        mailbox = await self.store.ledger.mailbox(self.leases[session])
        self.seen[session] = mailbox.seen
        return mailbox.head.id if mailbox.head else None

    async def read_each(self, sessions: Sequence[str]) -> None:
        await asyncio.gather(*(self.read(session) for session in sessions))

    async def saw(self, sessions: Sequence[str], counter: int) -> None:
        """Take it that the mailboxes were read and their counter was this."""
        self.seen.update(dict.fromkeys(sessions, counter))

    async def begin(self, session: str) -> str:
        """Begin the head of the mailbox."""
        dispatch = await self.read(session)
        assert dispatch is not None
        write = TurnWrite(DispatchId(dispatch), self.heads[session])
        await self.store.ledger.begin(self.leases[session], write, timedelta(hours=1))
        return dispatch

    async def append(self, session: str, dispatch: str, times: int = 1) -> float:
        """Append entries one after another; return how many seconds the slowest took."""
        slowest = 0.0
        for _ in range(times):
            started = time.monotonic()
            write = TurnWrite(DispatchId(dispatch), self.heads[session], (InputEntry(f"by {os.getpid()}"),))
            self.heads[session] = await self.store.journal.append(self.leases[session], write)
            slowest = max(slowest, time.monotonic() - started)
        return slowest

    async def settle(self, session: str, dispatch: str, last: Sequence[str] = ("last",)) -> bool:
        """Settle with one reply, after these entries."""
        reply = OutboxDraft(self.ids.outbox(), "chat", Raw(b"{}"), "bye", f"{dispatch}:{os.getpid()}")
        write = TurnWrite(
            DispatchId(dispatch),
            self.heads[session],
            tuple(InputEntry(text) for text in last),
            (DispatchSettled("completed"),),
            (reply,),
        )
        settled = await self.store.ledger.settle(
            self.leases[session], Settlement(write, "completed", DispatchResult(str(os.getpid())))
        )
        self.heads[session] = settled.head
        return True

    async def release(self, session: str) -> bool:
        return await self.store.ledger.release(self.leases[session], self.seen[session])

    async def release_each(self, sessions: Sequence[str]) -> list[str]:
        """Release many at once by what was read of them; return those something had arrived in."""
        done = await asyncio.gather(*(self.release(session) for session in sessions))
        return [session for session, released in zip(sessions, done, strict=True) if not released]

    def admission(self, thread: str, *keys: str) -> Admission:
        dedupe = tuple(DedupeKey("race", key) for key in keys)
        return Admission(self.ids.dispatch(), SessionAddress("echo", thread), DispatchInput("hello"), dedupe)

    async def admit(self, threads: Sequence[str]) -> list[str]:
        """Admit one dispatch to each thread, all in one statement; return their ids."""
        batch = [self.admission(thread) for thread in threads]
        return [answer.dispatch_id for answer in await self.store.ledger.admit(batch, LIMITS) if answer.dispatch_id]

    async def admit_in_turn(self, thread: str, times: int) -> list[str]:
        """Admit to one thread, each after the receipt of the one before."""
        return [(await self.admit([thread]))[0] for _ in range(times)]

    async def admit_key(self, thread: str, key_sets: Sequence[Sequence[str]]) -> list[tuple[str, str, bool]]:
        """Admit one dispatch for each set of keys, all at once; return id, time and duplicate of each receipt."""
        tasks = [self.store.ledger.admit([self.admission(thread, *keys)], LIMITS) for keys in key_sets]
        receipts = [answers[0] for answers in await asyncio.gather(*tasks)]
        return [(r.dispatch_id, r.accepted_at.isoformat(), r.duplicate) for r in receipts if isinstance(r, Receipt)]

    async def admit_until_stopped(self, thread: str) -> list[str]:
        """Admit over and over, as a front does that repeats what may not have been committed; return own ids."""
        admitted: list[str] = []
        while not self.stopped.is_set():
            admission = self.admission(thread, f"{os.getpid()}-{len(admitted)}")
            while True:
                try:
                    [answer] = await self.store.ledger.admit([admission], LIMITS)
                    break
                except (CommitUnknownError, StoreUnavailableError):
                    await asyncio.sleep(0.05)
            assert answer.dispatch_id == admission.dispatch_id
            admitted.append(admission.dispatch_id)
        return admitted

    async def stop(self) -> None:
        self.stopped.set()

    async def storm(self, threads: Sequence[str], times: int, callers: int) -> int:
        """Admit ``times`` to each thread and ring after each; a ring claims, works and releases. No rescue.

        Every process goes through the threads in the same order, so that all meet at one thread, and then leave it for
        good: what is stranded there stays stranded.
        """
        numbers = iter(range(times * len(threads)))

        async def caller() -> int:
            worked = 0
            for number in numbers:
                thread = threads[number // times]
                await self.admit([thread])
                worked += await self._drain(SessionAddress("echo", thread).id)
            return worked

        return sum(await asyncio.gather(*(caller() for _ in range(callers))))

    async def _drain(self, session: SessionId) -> int:
        lease = await self.store.ledger.claim(session, self.worker, AGENTS)
        if lease is None:
            return 0
        head, worked = lease.head, 0
        while True:
            mailbox = await self.store.ledger.mailbox(lease)
            if mailbox.head is None:
                if await self.store.ledger.release(lease, mailbox.seen):
                    return worked
                continue
            write = TurnWrite(mailbox.head.id, head, (InputEntry("worked"),))
            at_once = mailbox.seen if mailbox.head.position % 2 else None  # otherwise release() does it
            settled = await self.store.ledger.settle(
                lease, Settlement(write, "completed", DispatchResult(""), release_if_seen=at_once)
            )
            head = settled.head
            worked += 1
            if settled.released:
                return worked


async def main(dsn: str) -> None:
    actor = Actor(dsn)
    await actor.store.open()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    answers: set[asyncio.Task[None]] = set()
    sys.stdout.write("ready\n")
    sys.stdout.flush()

    async def answer(line: bytes) -> None:
        order = json.loads(line)
        reply: dict[str, Any] = {"id": order["id"]}
        try:
            reply["ok"] = await getattr(actor, order["op"])(**order["args"])
        except Exception as error:  # noqa: BLE001 - the test that asked is told which it was
            reply["error"] = type(error).__name__
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()

    while line := await reader.readline():
        task = asyncio.create_task(answer(line))
        answers.add(task)
        task.add_done_callback(answers.discard)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
