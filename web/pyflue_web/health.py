"""Whether this process lives, and whether it can take work."""

from __future__ import annotations

import asyncio
from typing import Final

from litestar import Response, get
from litestar.di import NamedDependency

from pyflue.errors import StoreUnavailableError
from pyflue.wire import Health
from pyflue_web.deps import WebDeps
from pyflue_web.problems import body_answer
from pyflue_web.responses import respond

READY_WITHIN: Final = 1.0  # seconds the store has to answer before this front counts as not ready


@get("/health/live", sync_to_thread=False)
def live() -> Response[bytes]:
    """Say that the process runs its event loop; nothing else is looked at."""
    return respond(body_answer(200, Health("live"), "live"))


@get("/health/ready")
async def ready(deps: NamedDependency[WebDeps]) -> Response[bytes]:
    """Say whether deliveries should come here: 200 while the store answers, 503 when not, or while stopping.

    A broker that is down only delays work by a second, so it degrades and does not refuse.
    """
    health = await _health(deps)
    return respond(body_answer(503 if health.status in ("unavailable", "draining") else 200, health, health.status))


async def _health(deps: WebDeps) -> Health:
    if deps.stopping.is_set():
        return Health("draining")
    try:
        async with asyncio.timeout(READY_WITHIN):
            await deps.store.ready()
    except (StoreUnavailableError, TimeoutError):
        return Health("unavailable", store="unavailable")
    if deps.ping_broker is None:
        return Health("ready", store="ready")
    if not await deps.ping_broker():
        return Health("degraded", store="ready", broker="unavailable")
    return Health("ready", store="ready", broker="ready")
