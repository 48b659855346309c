"""The front inside another process's event loop: `pyflue dev` and `pyflue demo`, where the worker lives too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from pyflue.errors import ConfigurationError
from pyflue.runtime import Runtime
from pyflue_web.app import create_app
from pyflue_web.deps import WebDeps

STOP_SECONDS = 5  # for requests under way when the process ends


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:  # the embedding process has its own handlers
        yield


@asynccontextmanager
async def front(runtime: Runtime, host: str, port: int) -> AsyncGenerator[int]:
    """Serve the front of a runtime while the block runs; yields the port (0 picks a free one).

    Raises:
        ConfigurationError: the address is taken or cannot be used.
    """
    stopping = asyncio.Event()
    deps = WebDeps(
        admitter=runtime.admitter,
        channels=runtime.channels,
        settings=runtime.project.settings,
        store=runtime.store,
        clock=runtime.clock,
        ids=runtime.ids,
        stopping=stopping,
    )
    listening = _bind(host, port)
    server = _Server(
        uvicorn.Config(
            create_app(deps),
            access_log=False,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells by an attribute only
            await asyncio.sleep(0.005)
        yield int(listening.getsockname()[1])
    finally:
        stopping.set()
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listening.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"The front cannot listen on {host}:{port}.",
            cause=f"{error.strerror}.",
            fix="Choose another address with --host and --port.",
        ) from error
    return listening
