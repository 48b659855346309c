"""A store that misbehaves when it is told to: away, failing once, slow at one call, or cut off for good.

A call is named ``port.method``, and also ``port.method.kind`` for each kind of journal entry it writes:
``journal.append.tool_started``, ``ledger.settle.answer``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal, cast

from pyflue.entries import kind_of_entry
from pyflue.errors import StoreUnavailableError
from pyflue.stores.protocol import Settlement, Store, TurnWrite

When = Literal["before", "after"]

PORTS: Final = ("ledger", "journal", "outbox", "steps", "events", "fleet", "views")


class Hold:
    """A place where a call waits: ``reached`` is set when one comes by, and it goes on once ``release`` is set."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()

    async def pass_by(self) -> None:
        self.reached.set()
        await self.release.wait()


class Faults:
    """What goes wrong with one process's view of a store. ``calls`` counts the calls made through it, by name."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._armed: dict[tuple[When, str], list[Exception | Hold]] = {}
        self._open = asyncio.Event()
        self._open.set()
        self._away = False

    def fail(self, call: str, error: Exception, *, when: When = "before", times: int = 1) -> None:
        """Make the next ``times`` calls raise: before anything was done, or after it was."""
        self._armed.setdefault((when, call), []).extend([error] * times)

    def hold(self, call: str, *, when: When = "before") -> Hold:
        """Make the next call wait, before or after it does its work."""
        hold = Hold()
        self._armed.setdefault((when, call), []).append(hold)
        return hold

    def go_away(self) -> None:
        """Answer every call with ``StoreUnavailableError`` until ``come_back``."""
        self._away = True

    def come_back(self) -> None:
        self._away = False

    def freeze(self) -> None:
        """Let every call wait, as those of a stopped process do, until ``thaw``."""
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    async def meet(self, when: When, names: list[str]) -> None:
        """Let happen what was armed for this call."""
        await self._open.wait()
        if self._away:
            raise StoreUnavailableError("told to be away")
        for name in names:
            if armed := self._armed.get((when, name)):
                fault = armed.pop(0)
                if isinstance(fault, Exception):
                    raise fault
                await fault.pass_by()
                await self._open.wait()


def faulty(store: Store, faults: Faults) -> Store:
    """Show a store through its faults; closing or opening this view leaves the store itself alone."""
    return cast(Store, _View(store, faults))


class _View:
    def __init__(self, store: Store, faults: Faults) -> None:
        self._ports = {name: _Port(getattr(store, name), name, faults) for name in PORTS}
        self._ready = store.ready

    def __getattr__(self, name: str) -> object:
        if name not in self._ports:
            raise AttributeError(name)
        return self._ports[name]

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def migrate(self) -> list[str]:
        return []

    async def ready(self) -> None:
        await self._ready()


class _Port:
    def __init__(self, port: object, name: str, faults: Faults) -> None:
        self._port = port
        self._name = name
        self._faults = faults

    def __getattr__(self, name: str) -> object:
        found = getattr(self._port, name)
        return partial(self._call, name, found) if inspect.iscoroutinefunction(found) else found

    async def _call(self, name: str, call: Callable[..., Awaitable[object]], *args: object, **named: object) -> object:
        names = _names(f"{self._name}.{name}", args)
        self._faults.calls.update(names)
        await self._faults.meet("before", names)
        result = await call(*args, **named)
        await self._faults.meet("after", names)
        return result


def _names(call: str, args: tuple[object, ...]) -> list[str]:
    writes = [given.write if isinstance(given, Settlement) else given for given in args]
    kinds = [kind_of_entry(entry) for write in writes if isinstance(write, TurnWrite) for entry in write.entries]
    return [call, *(f"{call}.{kind}" for kind in dict.fromkeys(kinds))]
