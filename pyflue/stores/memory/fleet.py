"""The worker processes, and judging which are dead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from pyflue.dispatches import Lease, WorkerRow
from pyflue.ids import DispatchId, OutboxId, SessionId, WorkerId
from pyflue.stores.memory.tables import Session, Tables
from pyflue.stores.protocol import Heartbeat


class MemoryFleet:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def register(self, worker: WorkerRow, lease_time: timedelta) -> None:
        now = self._tables.now()
        self._free_all(worker.id)
        self._tables.workers[worker.id] = replace(
            worker, status="live", started_at=now, heartbeat_at=now, expires_at=now + lease_time, sessions=0
        )
        self._tables.liveness.add(worker.id)

    async def heartbeat(self, worker_id: WorkerId, lease_time: timedelta) -> Heartbeat:
        if self._tables.is_gone(worker_id):
            return Heartbeat(alive=False)
        now = self._tables.now()
        worker = self._tables.workers[worker_id]
        self._tables.workers[worker_id] = replace(worker, heartbeat_at=now, expires_at=now + lease_time)
        self._tables.liveness.add(worker_id)
        return Heartbeat(alive=True, aborts=self._aborts(worker_id))

    def _aborts(self, worker_id: WorkerId) -> tuple[DispatchId, ...]:
        return tuple(
            dispatch.id
            for session in self._held(worker_id)
            for dispatch in self._tables.unsettled(session)
            if dispatch.abort_requested_at
        )

    async def drain(self, worker_id: WorkerId) -> None:
        worker = self._tables.workers.get(worker_id)
        if worker and worker.status == "live":
            self._tables.workers[worker_id] = replace(worker, status="draining")

    async def retire(self, worker_id: WorkerId) -> None:
        self._bury(worker_id)
        self._free_all(worker_id)

    async def reap(self, grace: timedelta) -> list[WorkerId]:
        now = self._tables.now()
        dead = [
            worker.id
            for worker in self._tables.workers.values()
            if worker.status != "dead"
            and (
                worker.expires_at < now
                or (worker.id not in self._tables.liveness and worker.heartbeat_at + grace < now)
            )
        ]
        for worker_id in dead:
            self._bury(worker_id)
        return dead

    async def free(self, limit: int) -> list[SessionId]:
        orphaned = [
            (session_id, session)
            for session_id, session in self._tables.sessions.items()
            if session.lease_owner is not None and self._tables.is_gone(session.lease_owner)
        ][:limit]
        for _, session in orphaned:
            self._tables.free(session)
        return [session_id for session_id, _ in orphaned]

    async def disown(
        self, worker_id: WorkerId, sessions: Sequence[SessionId], items: Sequence[OutboxId]
    ) -> list[SessionId]:
        stray = [
            session_id
            for session_id, session in self._tables.sessions.items()
            if session.lease_owner == worker_id and session_id not in sessions
        ]
        for session_id in stray:
            self._tables.free(self._tables.sessions[session_id])
        for outbox_id, owner in list(self._tables.outbox_owners.items()):
            if owner == worker_id and outbox_id not in items:
                del self._tables.outbox_owners[outbox_id]
        return stray

    async def unclaimable(self, after: timedelta, limit: int, worker_id: WorkerId) -> list[Lease]:
        if not self._tables.is_live(worker_id):
            return []
        since = self._tables.now() - after
        offered = {
            agent for worker in self._tables.workers.values() if worker.heartbeat_at > since for agent in worker.agents
        }
        stuck = [
            session_id
            for session_id, session in self._tables.sessions.items()
            if session.lease_owner is None
            and session.due_at is not None
            and session.due_at <= since
            and session.address.agent not in offered
        ]
        return [self._tables.take(session_id, worker_id) for session_id in stuck[:limit]]

    def drop_liveness(self, worker_id: WorkerId) -> None:
        """Let the worker's liveness lock go, as the death of its process would. Only the memory store has this."""
        self._tables.liveness.discard(worker_id)

    def _held(self, worker_id: WorkerId) -> list[Session]:
        return [session for session in self._tables.sessions.values() if session.lease_owner == worker_id]

    def _free_all(self, worker_id: WorkerId) -> None:
        for session in self._held(worker_id):
            self._tables.free(session)

    def _bury(self, worker_id: WorkerId) -> None:
        if worker := self._tables.workers.get(worker_id):
            self._tables.workers[worker_id] = replace(worker, status="dead")
        self._tables.liveness.discard(worker_id)
