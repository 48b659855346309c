"""Calling a platform's API: one client a channel, one budget a call, one reading of what went wrong.

Redirects are never followed: a reply goes where it was configured to go or nowhere. What went wrong is told in the
terms the outbox needs: whether the platform may have taken the call, and whether calling again can help.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar
from urllib.request import getproxies

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from pyflue.channels.protocol import SendFailure
from pyflue.clock import Clock

T = TypeVar("T")

_RETRYABLE_4XX: Final = frozenset({401, 408, 409, 425, 429})
_LONGEST_WAIT: Final = timedelta(days=1)  # a platform that asks for more is asked again after a day
_NEVER_LEFT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
_NOT_IN_HEADERS: Final = re.compile(r"[\r\n\x00]")
_CONNECTIONS: Final = 100  # to one platform; as many as a worker sends replies at once


class Call(Struct, frozen=True):
    """One request to a platform. ``body`` is JSON; empty for reading."""

    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    params: Mapping[str, str] = {}


class Reply(Struct, frozen=True):
    """What the platform answered, whatever the status. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class PlatformApi:
    """The HTTP side of one channel. The client is made at the first call and belongs to that call's event loop."""

    def __init__(self, channel: str, *, timeout: timedelta, clock: Clock) -> None:
        self._channel = channel
        self._timeout = timeout.total_seconds()
        self._clock = clock
        self._client: aiohttp.ClientSession | None = None

    async def call(self, call: Call) -> Reply:
        """Make one request within the time allowed, reading the whole answer.

        Raises:
            SendFailure: no answer came. It is ambiguous unless the request demonstrably never left.
        """
        client = self._client or self._connect()
        headers = {"user-agent": "pyflue", "content-type": "application/json", **call.headers}
        if origin_of(call.url) is None or any(_NOT_IN_HEADERS.search(value) for value in headers.values()):
            raise SendFailure(f"{self._channel} has an address that cannot be called.", permanent=True)
        try:
            async with (
                asyncio.timeout(self._timeout),
                client.request(
                    call.method,
                    call.url,
                    data=call.body or None,
                    headers=headers,
                    params=call.params or None,
                    allow_redirects=False,
                ) as answer,
            ):
                body = await answer.read()
        except _NEVER_LEFT as error:
            raise SendFailure(f"{self._channel} could not be reached ({type(error).__name__}).") from error
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            message = f"{self._channel} did not answer ({type(error).__name__})."
            raise SendFailure(message, ambiguous=True) from error
        return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, body)

    def _connect(self) -> aiohttp.ClientSession:
        """Make the client. It keeps no cookies, and looks for a proxy only where the environment names one."""
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=bool(getproxies()),
        )
        return self._client

    def failure(self, reply: Reply, said: str = "") -> SendFailure:
        """Say what an answer other than 2xx means for the reply that was to be sent.

        A 5xx is ambiguous: the platform may have done the work before it failed. A 4xx did nothing, and except for
        401 (an operator can replace a token), 408, 409, 425 and 429 nothing changes by asking again; nor does a
        redirect, which is not followed.
        """
        message = f"{self._channel} answered {reply.status}" + (f": {said[:200]}" if said else ".")
        wait = self.retry_after(reply)
        if reply.status >= 500:
            return SendFailure(message, ambiguous=True, retry_after=wait)
        if reply.status in _RETRYABLE_4XX:
            return SendFailure(message, retry_after=wait)
        return SendFailure(message, permanent=True)

    def retry_after(self, reply: Reply) -> timedelta | None:
        """Read ``Retry-After``, in seconds or as a date; None when it is missing or unreadable."""
        value = reply.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit() and len(value) <= 9:
            return _bounded(timedelta(seconds=int(value)))
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        return self.wait_until(until if until.tzinfo else until.replace(tzinfo=UTC))

    def wait_until(self, instant: datetime) -> timedelta:
        """Return the time from now to ``instant``, at least zero and at most a day."""
        return _bounded(instant - self._clock.now())

    def now(self) -> datetime:
        return self._clock.now()

    async def close(self) -> None:
        """Close the connections; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an http(s) address without credentials; None for anything else.

    Read by the very parser that the client uses, so that the two cannot disagree about where a request goes.
    """
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError:
        return None
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or parsed.user or parsed.password or port is None:
        return None
    return parsed.scheme, parsed.raw_host.lower(), port


def read_answer(channel: str, reply: Reply, shape: type[T]) -> T:
    """Read the JSON of a platform's answer.

    Raises:
        SendFailure: it is not what the platform answers (a gateway's page, say), so what happened is not known.
    """
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise SendFailure(f"{channel} answered {reply.status} with an unreadable body.", ambiguous=True) from error


def unresolved(failure: SendFailure) -> SendFailure:
    """Return the failure of a look-up: whether the earlier attempt arrived is still not known."""
    return SendFailure(
        f"Looking for an earlier attempt failed: {failure.what}",
        permanent=failure.permanent,
        ambiguous=True,
        retry_after=failure.retry_after,
    )


def _bounded(wait: timedelta) -> timedelta:
    return min(max(wait, timedelta()), _LONGEST_WAIT)
