"""What a worker process works with, handed to every step instead of being looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pyflue.bells.protocol import Bell
from pyflue.channels.protocol import Channel
from pyflue.clock import Clock
from pyflue.config import Settings
from pyflue.dispatches import OutboxItem
from pyflue.errors import StoreUnavailableError
from pyflue.ids import DispatchId, Ids, OutboxId, WorkerId
from pyflue.models.resolve import ModelProviders
from pyflue.profiles import AgentLimits
from pyflue.registry import Registry
from pyflue.session.liveness import Liveness
from pyflue.session.turn import TurnControl
from pyflue.stores.protocol import Store

T = TypeVar("T")
RETRY_PAUSE: Final = 0.2  # seconds between tries while the store is away


@dataclass
class Workplace:
    """The parts of one worker process, and what it is doing right now.

    ``worker_id`` changes when the process had to be taken for dead: it comes back as a new worker.
    ``deliver`` starts sending an outbox item this process has taken; ``on_text`` sees text deltas as they stream.
    """

    store: Store
    bell: Bell
    registry: Registry
    models: ModelProviders
    channels: Mapping[str, Channel]
    settings: Settings
    clock: Clock
    ids: Ids
    env: Mapping[str, str]
    worker_id: WorkerId
    liveness: Liveness
    deliver: Callable[[OutboxItem], None] = lambda item: None
    on_text: Callable[[DispatchId, int, str], None] | None = None
    running: dict[DispatchId, TurnControl] = field(default_factory=dict[DispatchId, TurnControl])
    sending: set[OutboxId] = field(default_factory=set[OutboxId])
    draining: bool = False

    def limits_of(self, agent: str) -> AgentLimits:
        """Return the agent's limits without running any of its code; the defaults for an agent we do not have."""
        found = self.registry.find(agent)
        return AgentLimits() if found is None else found.limits


async def patiently(liveness: Liveness, run: Callable[[], Awaitable[T]]) -> T:
    """Repeat something harmless to repeat until the store answers.

    Raises:
        LeaseLost: the self-fence closed while waiting.
    """
    while True:
        liveness.check()
        try:
            return await run()
        except StoreUnavailableError:
            await asyncio.sleep(RETRY_PAUSE)
