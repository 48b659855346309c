"""Proof of life between processes of one host: a lock on a file for each worker.

The kernel frees a ``flock`` when the last descriptor of its process goes, so a killed worker is noticed at once. The
locks are per open file, not per process: several stores of one process do not confuse each other.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from threading import Lock

from pyflue.ids import WorkerId


class LivenessFiles:
    """The locks this store holds, and a look at those of others. All calls are short and may come from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[WorkerId, int] = {}
        self._guard = Lock()

    def hold(self, worker_id: WorkerId) -> None:
        """Take the worker's lock, or take it back if its file was removed; keep it if it is ours already."""
        with self._guard:
            descriptor = self._held.get(worker_id)
            if descriptor is not None and _is_same_file(descriptor, self._path(worker_id)):
                return
            self._let_go(worker_id)
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path(worker_id), os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody is looking at it this instant; the next heartbeat tries again
                os.close(descriptor)
                return
            self._held[worker_id] = descriptor

    def is_free(self, worker_id: WorkerId) -> bool:
        """Tell whether no process holds the worker's lock."""
        try:
            descriptor = os.open(self._path(worker_id), os.O_RDWR)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not hinder each other
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def remove(self, worker_id: WorkerId) -> None:
        """Let the lock go if it is ours, and remove the file of a worker that is dead."""
        with self._guard:
            self._path(worker_id).unlink(missing_ok=True)
            self._let_go(worker_id)

    def close(self) -> None:
        """Let every lock go; the files stay for whoever judges the workers dead."""
        with self._guard:
            for worker_id in list(self._held):
                self._let_go(worker_id)

    def _path(self, worker_id: WorkerId) -> Path:
        return self._folder / worker_id

    def _let_go(self, worker_id: WorkerId) -> None:
        descriptor = self._held.pop(worker_id, None)
        if descriptor is not None:
            os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
