"""Uvicorn around the front: one socket, one loop, and an end that finishes what was begun."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import uvicorn

from pyflue.errors import ConfigurationError
from pyflue_web.app import create_app
from pyflue_web.connections import BoundedConnection
from pyflue_web.deps import WebDeps

STOP_SECONDS: Final = 10  # for requests under way when the process ends; longer than an admission may take
KEEP_ALIVE_SECONDS: Final = 30  # for connections of a proxy between two requests
BACKLOG: Final = 2_048  # connections the kernel holds while the loop is busy


async def serve_until_stopping(deps: WebDeps, listening: socket.socket) -> None:
    """Serve the front on a bound socket until ``deps.stopping`` is set and the requests under way are answered."""
    config = uvicorn.Config(
        create_app(deps),
        http=BoundedConnection,
        ws="none",  # whatever else is installed: a connection that changes its protocol leaves those bounds
        lifespan="off",  # the parts are opened and closed around this call
        access_log=False,  # our own line has no query string and knows the dispatch
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    await _Server(config, deps).serve(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Bind the address; port 0 picks a free one. Nothing is accepted yet.

    Raises:
        ConfigurationError: the address is taken or cannot be used.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigurationError(
            f"The front cannot listen on {host}:{port}.",
            cause=f"{getattr(error, 'strerror', None) or error}.",
            fix="Choose another address with --host and --port.",
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Ends when the process is stopping; the signals are the process's own."""

    def __init__(self, config: uvicorn.Config, deps: WebDeps) -> None:
        super().__init__(config)
        self._stopping = deps.stopping

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        return self._stopping.is_set() or await super().on_tick(counter)
