"""Starts many short-lived processes quickly: one interpreter imports everything once, each process is a fork of it.

A fork that has run nothing is what a fresh interpreter is after its imports, which cost two seconds of CPU a time.
``Nursery`` is the test's side; ``python -m tests.flow.nursery`` is the other. They speak JSON lines.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Self

PRELOADED = (
    "pyflue.testing.process",
    "pyflue.testing.anthropic",
    "pyflue.testing.platforms",
    "pyflue.cli.dev",
    "pyflue.cli.web",
    "pyflue.cli.worker",
    "pyflue.models.anthropic_stream",
    "pyflue.stores.postgres",
    "pyflue.stores.sqlite",
    "pyflue_web.embedded",
    "pyflue_web.process",
    "pyflue_workers.process",
    "anthropic",
    "anthropic.types",
    "uvicorn",
)
NOTICE = 0.02  # seconds between looks for children that ended


class Child:
    """A process that was started. It is the nursery's child, so what is known of it comes from files and signals."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log

    @property
    def returncode(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        ended = self._log.with_suffix(f".{self.pid}.exit")
        return int(ended.read_text()) if ended.exists() else None

    @property
    def text(self) -> str:
        """Return what it and its predecessors have written."""
        return self._log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that ended does not mind."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float = 15) -> int:
        """Block until it ends; return its exit code."""
        give_up = time.monotonic() + seconds
        while (code := self.returncode) is None:
            assert time.monotonic() < give_up, f"process {self.pid} did not end:\n{self.text[-3000:]}"
            time.sleep(NOTICE / 2)
        return code


class Nursery:
    """Forks processes on demand; ends all of them when it is closed or its owner dies."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.flow.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, module: str, words: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> Child:
        """Fork a process that runs ``module.main`` with ``words`` as its command line, writing to ``log``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"module": module, "words": list(words), "cwd": str(cwd), "env": dict(env), "log": str(log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Child(int(self._process.stdout.readline()), log)


def main() -> None:
    """Serve orders until stdin ends, then kill what still runs."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # what was imported is never collected, so the forks go on sharing its memory
    children: dict[int, Path] = {}
    unread = b""
    while True:
        if select.select([0], [], [], NOTICE)[0]:
            piece = os.read(0, 65_536)
            if not piece:
                break
            *orders, unread = (unread + piece).split(b"\n")
            for order in orders:
                given = json.loads(order)
                if (pid := os.fork()) == 0:
                    _become(given)
                children[pid] = Path(given["log"])
                os.write(1, b"%d\n" % pid)
        _bury(children, os.WNOHANG)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    _bury(children, 0)


def _bury(children: dict[int, Path], options: int) -> None:
    """Note the exit code of each child that ended."""
    while children:
        pid, status = os.waitpid(-1, options)
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        ended = children.pop(pid).with_suffix(f".{pid}.exit")
        with contextlib.suppress(FileNotFoundError):  # the test and its folder are gone
            partial = ended.with_suffix(".part")
            partial.write_text(str(code))
            partial.rename(ended)


def _become(order: dict[str, str]) -> NoReturn:
    """Turn this fork into the process that was asked for."""
    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv = [order["module"], *order["words"]]
        importlib.import_module(order["module"]).main()
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 - the end of a process: its trace is all that is left of it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
