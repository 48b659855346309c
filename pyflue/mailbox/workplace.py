"""What a worker process works with, handed to every step instead of being looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyflue.bells.protocol import Bell
from pyflue.channels.protocol import Channel
from pyflue.clock import Clock
from pyflue.config import Secrets, Settings
from pyflue.dispatches import OutboxItem
from pyflue.ids import DispatchId, Ids, OutboxId, WorkerId
from pyflue.mailbox.gate import Gate
from pyflue.models.resolve import ModelProviders
from pyflue.profiles import AgentLimits
from pyflue.registry import Registry
from pyflue.session.liveness import Liveness
from pyflue.session.turn import TurnControl
from pyflue.stores.protocol import Store


@dataclass
class Workplace:
    """The parts of one worker process, and what it is doing right now.

    ``worker_id`` changes when the process had to be taken for dead: it comes back as a new worker.
    ``deliver`` starts sending an outbox item this process has taken.
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
    secrets: Secrets
    worker_id: WorkerId
    liveness: Liveness
    deliver: Callable[[OutboxItem], None] = lambda item: None
    running: dict[DispatchId, TurnControl] = field(default_factory=dict[DispatchId, TurnControl])
    sending: set[OutboxId] = field(default_factory=set[OutboxId])
    gate: Gate = field(default_factory=Gate)
    draining: bool = False
    doubtful: bool = False
    """The store may say that this process holds something it knows nothing of: look soon, and give that up."""

    def limits_of(self, agent: str) -> AgentLimits:
        """Return the agent's limits without running any of its code; the defaults for an agent we do not have."""
        found = self.registry.find(agent)
        return AgentLimits() if found is None else found.limits
