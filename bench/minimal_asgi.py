"""The floor of the front: a minimal ASGI application that verifies a webhook, inserts a row and commits, per request.

Run under uvicorn with ``BENCH_DSN`` set: ``uvicorn bench.minimal_asgi:app``. It answers 202 after the commit, and knows
nothing of duplicates, queues or agents.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from psycopg_pool import AsyncConnectionPool

from bench.webhooks import SECRET

KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
CREATE = "create table if not exists received (id text primary key, thread text not null, body bytea not null)"
INSERT = "insert into received (id, thread, body) values (%s, %s, %s)"
HEADERS = [(b"content-type", b"application/json")]

Event = MutableMapping[str, Any]
pool: AsyncConnectionPool = AsyncConnectionPool(
    os.environ.get("BENCH_DSN", ""), min_size=6, max_size=6, open=False, kwargs={"autocommit": True}
)


async def app(scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    body = (await receive())["body"]
    headers = dict(scope["headers"])
    identity = headers[b"webhook-id"]
    signed = b"%b.%b.%b" % (identity, headers[b"webhook-timestamp"], body)
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256))
    status = 401
    if hmac.compare_digest(expected, headers[b"webhook-signature"]):
        thread = msgspec.json.decode(body)["thread"]
        async with pool.connection() as connection:
            await connection.execute(INSERT, (identity.decode(), thread, body))
        status = 202
    answer = b'{"status":"accepted"}' if status == 202 else b"{}"
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*HEADERS, length]})
    await send({"type": "http.response.body", "body": answer})


async def _lifespan(receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]) -> None:
    await receive()
    await pool.open(wait=True)
    async with pool.connection() as connection:
        await connection.execute(CREATE)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await pool.close()
    await send({"type": "lifespan.shutdown.complete"})
