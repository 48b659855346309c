"""The front inside another process's event loop: `pyflue dev` and `pyflue demo`, where the worker lives too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pyflue.bells.redis import RedisBell
from pyflue.runtime import Runtime
from pyflue_web.deps import WebDeps
from pyflue_web.serving import BACKLOG, listen, serve_until_stopping


@asynccontextmanager
async def front(runtime: Runtime, host: str, port: int) -> AsyncGenerator[int]:
    """Serve the front of a runtime while the block runs; yields the port (0 picks a free one).

    Raises:
        ConfigurationError: the address is taken or cannot be used.
    """
    deps = WebDeps(
        admitter=runtime.admitter,
        channels=runtime.channels,
        settings=runtime.project.settings,
        store=runtime.store,
        clock=runtime.clock,
        ids=runtime.ids,
        stopping=asyncio.Event(),
        ping_broker=runtime.bell.ping if isinstance(runtime.bell, RedisBell) else None,
    )
    with listen(host, port) as listening:
        listening.listen(BACKLOG)  # whoever connects from now on waits for the server instead of being refused
        bound = int(listening.getsockname()[1])
        serving = asyncio.create_task(serve_until_stopping(deps, listening))
        try:
            yield bound
        finally:
            deps.stopping.set()
            await serving
