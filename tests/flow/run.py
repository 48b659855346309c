"""One run against a deployment: what was said to it, what was done to it, and the history it left."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime

import httpx2
import msgspec
from msgspec import Raw, Struct

from pyflue import SQLiteSessionStore
from pyflue.channels.signed import SampleMessage, signed_delivery
from pyflue.config import Secret
from pyflue.entries import ToolResultEntry
from pyflue.stores.protocol import SessionQuery, Store
from pyflue.testing.anthropic import Received
from pyflue.testing.history import check
from pyflue.testing.posted import Posted
from pyflue.testing.recorded import (
    Bounds,
    Delivery,
    Effect,
    Fault,
    History,
    Operation,
    all_dispatches,
    gather,
    read_effects,
)
from tests.flow.deployment import SECRETS, Deployment
from tests.waiting import until

SIGNING = {"github": "GITHUB_WEBHOOK_SECRET", "slack": "SLACK_SIGNING_SECRET", "standard": "STANDARD_WEBHOOK_SECRET"}
FORGED = {
    "github": "not-the-secret",
    "slack": "not-the-secret",
    "standard": "whsec_bm90IHRoZSBzZWNyZXQgeW91IGxvb2sgZm9y",
}
RETRY_PAUSE = 0.05  # seconds before a platform delivers again
GIVE_UP = 60.0  # seconds after which a platform would no longer deliver
SHOWN = 20  # breaches a failing test names
MARGIN = 0.5  # seconds a request may have been under way when a fault began


class _Answer(Struct):
    dispatch_id: str = ""


class _Stats(Struct):
    running: int


class Run:
    """Says things to a deployment as platforms do: until they are acknowledged, the same delivery again."""

    def __init__(self, deployment: Deployment, client: httpx2.AsyncClient, kept: bool) -> None:
        self.deployment = deployment
        self.kept = kept
        self.faults: list[Fault] = []
        self._client = client
        self._deliveries: dict[str, Delivery] = {}
        self._operations: list[Operation] = []

    def thread(self, channel: str) -> str:
        """Return the name of a conversation nobody has had."""
        name = f"{'kept' if self.kept else ''}{secrets.token_hex(4)}"
        match channel:
            case "github":
                return f"octo/r{name}#{secrets.randbelow(900) + 1}"
            case "slack":
                return f"C{name.upper()}:1700000000.{secrets.randbelow(900_000) + 1:06}"
            case _:
                return f"t-{name}"

    async def say(self, channel: str, thread: str, what: str, *, copies: int = 1) -> str:
        """Deliver a message, ``copies`` times at once, again and again until it is acknowledged; return its unique text."""
        text = f"m-{secrets.token_hex(6)}"
        self._deliveries[text] = Delivery(text, thread, accepted=False)
        message = SampleMessage(f"{text} {what}", delivery_id=secrets.token_hex(8), thread=thread)

        async def delivered() -> bool:
            answers = await asyncio.gather(*(self._deliver(channel, message, text) for _ in range(copies)))
            return any(answers)

        await until(delivered, GIVE_UP, every=RETRY_PAUSE)
        return text

    async def forge(self, channel: str, thread: str) -> None:
        """Deliver a message that somebody else signed, which must be refused and never be worked."""
        text = f"m-{secrets.token_hex(6)}"
        message = SampleMessage(f"{text} forged", delivery_id=secrets.token_hex(8), thread=thread)
        signed = signed_delivery(channel, Secret(FORGED[channel]), message, datetime.now(UTC))
        began = time.time()
        answer = await self._client.post(self.deployment.url + signed.path, content=signed.body, headers=signed.headers)
        self._deliveries[text] = Delivery(text, thread, accepted=False, refused=True)
        self._operations.append(Operation(began, succeeded=answer.status_code == 401))

    async def _deliver(self, channel: str, message: SampleMessage, text: str) -> bool:
        signed = signed_delivery(channel, Secret(SECRETS[SIGNING[channel]]), message, datetime.now(UTC))
        began = time.time()
        try:
            answer = await self._client.post(
                self.deployment.url + signed.path, content=signed.body, headers=signed.headers
            )
        except httpx2.HTTPError:
            self._operations.append(Operation(began, succeeded=False))
            return False
        self._operations.append(Operation(began, succeeded=answer.is_success))
        if answer.is_success:
            known = self._deliveries[text]
            told = msgspec.json.decode(answer.content, type=_Answer).dispatch_id if answer.content else ""
            ids = {*known.dispatch_ids, told} - {""}
            self._deliveries[text] = msgspec.structs.replace(known, accepted=True, dispatch_ids=tuple(ids))
        return answer.is_success

    @contextmanager
    def fault(self, what: str, *, crash: bool = True, refusing: bool = True) -> Iterator[None]:
        """Record that something is broken for the length of the block; unless ``refusing``, the front must not show it."""
        began = time.time() - MARGIN
        try:
            yield
        finally:
            self.faults.append(Fault(what, began, time.time(), crash, refusing))

    async def script_model(self, *replies: dict[str, object]) -> None:
        """Have the model answer its next calls like this (``pyflue.testing.anthropic_replies.Reply``)."""
        answer = await self._client.post(f"{self.deployment.fakes.model_url}/_fake/script", json={"replies": replies})
        answer.raise_for_status()

    async def fail_platform(self, failure: dict[str, object]) -> None:
        """Have a platform fail (``pyflue.testing.posted.Failure``)."""
        answer = await self._client.post(f"{self.deployment.fakes.platforms_url}/_fake/script", json=failure)
        answer.raise_for_status()

    async def model_is_busy(self) -> bool:
        """Tell whether the model is being asked something."""
        stats = await self._client.get(f"{self.deployment.fakes.model_url}/_fake/stats")
        return msgspec.json.decode(stats.content, type=_Stats).running > 0

    async def effects(self) -> tuple[Effect, ...]:
        """Return the effects that tools have had in this deployment."""
        file = self.deployment.effects
        return read_effects(file.read_text().splitlines()) if file.exists() else ()

    async def until_quiet(self, seconds: float = 30) -> None:
        """Return once everything is settled, sent and given back, or when that takes too long: the check says what."""
        with contextlib.suppress(TimeoutError):
            async with self.deployment.store() as store:
                await until(lambda: _is_quiet(store), seconds, every=0.05)

    async def history(self, bounds: Bounds) -> History:
        """Collect what every side recorded of this run's conversations."""
        deliveries = tuple(self._deliveries.values())
        async with self.deployment.store() as store:
            kept = SQLiteSessionStore(self.deployment.conversations)
            stored = await gather(store, self._deliveries, kept)
            await kept.close()
            others = {str(row.id) for row in await all_dispatches(store)} - {row.id for row in stored.dispatches}
        ours = {row.id for row in stored.dispatches}
        keys = {item.idempotency_key for item in stored.outbox}
        requests = msgspec.json.decode(
            (await self._client.get(f"{self.deployment.fakes.model_url}/_fake/requests")).content, type=list[Received]
        )
        posted = msgspec.json.decode(
            (await self._client.get(f"{self.deployment.fakes.platforms_url}/_fake/messages")).content,
            type=list[Posted],
        )
        return History(
            deliveries=deliveries,
            stored=stored,
            requests=tuple(Raw(bytes(one.body)) for one in requests),
            posted=tuple(post for post in posted if post.key in keys or post.key.partition("-")[0] not in others),
            effects=tuple(effect for effect in await self.effects() if effect.key.partition(":")[0] in ours),
            operations=tuple(self._operations),
            faults=tuple(self.faults),
            bounds=bounds,
        )

    async def verdict(self, bounds: Bounds) -> History:
        """Fail with everything that was not kept."""
        history = await self.history(bounds)
        broken = check(history)
        print(_described(history))
        assert not broken, "\n".join([f"{len(broken)} breaches", *map(str, broken[:SHOWN]), self.deployment.logs()])
        return history


@asynccontextmanager
async def running(deployment: Deployment, *, kept: bool = False) -> AsyncIterator[Run]:
    """Begin a run with the fakes' memory empty, nothing armed and every process up.

    ``kept``: the agent keeps this run's conversations in a store of its own.
    """
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as client:
        for url in (deployment.fakes.model_url, deployment.fakes.platforms_url):
            (await client.post(f"{url}/_fake/reset")).raise_for_status()
        deployment.crashes.disarm()
        deployment.starts.clear()
        async with deployment.supervised():
            await deployment.all_up()
            yield Run(deployment, client, kept)


async def _is_quiet(store: Store) -> bool:
    totals = await store.views.totals()
    waiting = sum(count for status, count in totals.dispatches.items() if status in {"queued", "running", "waiting"})
    unsent = sum(count for status, count in totals.outbox.items() if status in {"pending", "sending"})
    if waiting or unsent or totals.due_sessions:
        return False
    rows = await store.views.sessions(SessionQuery(limit=1_000))
    return all(row.lease_owner is None for row in rows)


def _described(history: History) -> str:
    """Say in one line how much a run did, so that an idle one shows."""
    kinds = Counter(event.type for events in history.stored.events.values() for event in events)
    entries = [entry for row in history.stored.dispatches for entry in history.entries_of(row)]
    unknown = sum(isinstance(entry, ToolResultEntry) and entry.outcome == "unknown" for entry in entries)
    found = sum(b'"found":true' in bytes(event.data) for events in history.stored.events.values() for event in events)
    failed = sum(not operation.succeeded for operation in history.operations)
    again = kinds["dispatch.started"] - len(history.stored.dispatches)
    return (
        f"{len(history.deliveries)} messages, {len(history.operations)} deliveries ({failed} failed), "
        f"{len(history.stored.dispatches)} dispatches, {again} started again, {kinds['dispatch.handed_back']} handed "
        f"back, {kinds['dispatch.parked']} parked, {unknown} unknown outcomes, {len(history.requests)} model calls, "
        f"{len(history.posted)} posts ({found} found there), {len(history.effects)} effects, {len(history.faults)} faults"
    )
