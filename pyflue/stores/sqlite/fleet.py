"""The worker processes, and judging which are dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from pyflue.dispatches import Lease, WorkerRow
from pyflue.ids import OutboxId, SessionId, WorkerId
from pyflue.stores.protocol import Heartbeat
from pyflue.stores.sqlite.database import Database
from pyflue.stores.sqlite.liveness import LivenessFiles
from pyflue.stores.sqlite.rows import lease_of, span
from pyflue.stores.sqlite.statements import Statements

DEAD_WORKERS_KEPT_FOR: Final = timedelta(days=2)  # which agents were advertised lately is judged from these rows too


class SQLiteFleet:
    def __init__(self, database: Database, liveness: LivenessFiles) -> None:
        self._database = database
        self.liveness = liveness

    async def register(self, worker: WorkerRow, lease_time: timedelta) -> None:
        await asyncio.to_thread(self.liveness.hold, worker.id)
        await self._database.write(lambda work: _register(work, worker, lease_time))

    async def heartbeat(self, worker_id: WorkerId, lease_time: timedelta) -> Heartbeat:
        def beat(work: Statements) -> Heartbeat:
            expires = work.now + span(lease_time)
            if work.one("fleet_heartbeat", worker=worker_id, now=work.now, expires=expires) is None:
                return Heartbeat(alive=False)
            aborts = work.all("fleet_heartbeat.aborts", worker=worker_id)
            return Heartbeat(alive=True, aborts=tuple(row[0] for row in aborts))

        heard = await self._database.write(beat)
        if heard.alive:
            await asyncio.to_thread(self.liveness.hold, worker_id)
        return heard

    async def drain(self, worker_id: WorkerId) -> None:
        await self._database.write(lambda work: work.run("fleet_drain", worker=worker_id))

    async def retire(self, worker_id: WorkerId) -> None:
        def retire(work: Statements) -> None:
            work.run("fleet_retire.free", worker=worker_id, now=work.now)
            work.run("fleet_retire", worker=worker_id)

        await self._database.write(retire)
        await asyncio.to_thread(self.liveness.remove, worker_id)

    async def reap(self, grace: timedelta) -> list[WorkerId]:
        dead = await self._database.read(lambda work: self._judge(work, grace))
        if not dead:
            return []

        def bury(work: Statements) -> list[WorkerId]:
            since = work.now - span(grace)
            named = {"now": work.now, "quiet_since": since}
            return [worker for worker in dead if work.one("fleet_reap.bury", worker=worker, **named)]

        buried = await self._database.write(bury)
        for worker_id in buried:
            await asyncio.to_thread(self.liveness.remove, worker_id)
        return buried

    def _judge(self, work: Statements, grace: timedelta) -> list[WorkerId]:
        suspects = work.all("fleet_reap", now=work.now, quiet_since=work.now - span(grace))
        return [worker for worker, expired in suspects if expired or self.liveness.is_free(worker)]

    async def free(self, limit: int) -> list[SessionId]:
        orphans = await self._database.read(lambda work: work.all("fleet_free", limit=limit))
        if not orphans:
            return []

        def free_each(work: Statements) -> list[SessionId]:
            return [row[0] for row in orphans if work.one("fleet_free.one", session=row[0], now=work.now)]

        return await self._database.write(free_each)

    async def disown(
        self, worker_id: WorkerId, sessions: Sequence[SessionId], items: Sequence[OutboxId]
    ) -> list[SessionId]:
        named = {
            "worker": worker_id,
            "sessions": msgspec.json.encode(sessions).decode(),
            "items": msgspec.json.encode(items).decode(),
        }
        if not await self._database.read(lambda work: work.all("fleet_disown", **named)):
            return []

        def disown(work: Statements) -> list[SessionId]:
            work.run("fleet_disown.items", **named)
            return [row[0] for row in work.all("fleet_disown.sessions", now=work.now, **named)]

        return await self._database.write(disown)

    async def unclaimable(self, after: timedelta, limit: int, worker_id: WorkerId) -> list[Lease]:
        stuck = await self._database.read(
            lambda work: work.all("fleet_unclaimable", since=work.now - span(after), worker=worker_id, limit=limit)
        )
        if not stuck:
            return []

        def take_each(work: Statements) -> list[Lease]:
            since = work.now - span(after)
            rows = [work.one("fleet_unclaimable.take", session=row[0], worker=worker_id, since=since) for row in stuck]
            return [lease_of(row, worker_id) for row in rows if row]

        return await self._database.write(take_each)


def _register(work: Statements, worker: WorkerRow, lease_time: timedelta) -> None:
    work.run("fleet_register.forget", before=work.now - span(DEAD_WORKERS_KEPT_FOR))
    work.run("fleet_retire.free", worker=worker.id, now=work.now)
    work.run(
        "fleet_register",
        worker=worker.id,
        host=worker.host,
        pid=worker.pid,
        agents=msgspec.json.encode(worker.agents).decode(),
        liveness_key=worker.liveness_key,
        now=work.now,
        expires=work.now + span(lease_time),
    )
