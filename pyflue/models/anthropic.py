"""The Anthropic Messages API, through the official SDK.

The SDK does authentication, headers, connections and error mapping. Its retries are off: it would sleep as long as a
``retry-after`` header says, holding a worker; failures are classified instead (``retry.py``) and the dispatch is
parked. Body and stream are ours (``anthropic_prompt.py``, ``anthropic_stream.py``): the request goes through the
client's public ``post`` with our bytes, and the raw response comes back, which costs a
quarter of the typed helpers' CPU time and keeps the bytes of a prompt stable.

The SDK takes two seconds of CPU to import, so only the first call imports it, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpx2

from pyflue.clock import Clock, SystemClock
from pyflue.config import Secret
from pyflue.messages import ModelAnswer
from pyflue.models.anthropic_prompt import request_body
from pyflue.models.anthropic_stream import AnswerBuilder, StreamError, StreamReader
from pyflue.models.protocol import ModelFailure, ModelRequest
from pyflue.models.retry import (
    ProviderError,
    answer_cut,
    classify,
    connection_lost,
    misconfigured,
    timed_out,
)

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
_CONNECT_TIMEOUT: Final = 5.0  # seconds, the SDK's own
_DRAIN_TIMEOUT: Final = 0.1  # seconds for the end of the body after the last event, so that the connection can be kept

_FOREIGN: Final = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.CookieConflict, httpx2.StreamError, OSError)
"""What may come out of the SDK besides its own errors: it does not wrap what breaks while a body is read."""


class AnthropicModel:
    """Answers with the Messages API; one client and its connections are shared by all turns of the process.

    ``timeout`` is the longest silence in seconds before a call counts as lost; as long as something comes, it is
    listened to. ``headers`` are added to every request, for gateways.
    """

    def __init__(
        self,
        api_key: Secret,
        *,
        base_url: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 600.0,
        clock: Clock | None = None,
    ) -> None:
        self._api_key = api_key
        self._base_url = base_url or DEFAULT_BASE_URL
        self._headers = dict(headers or {})
        self._timeout = httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT))
        self._clock = clock or SystemClock()
        self._client: AsyncAnthropic | None = None
        self._address = (
            f"{self._base_url.rstrip('/')}/v1/messages"  # in full: the SDK need not put it together each time
        )
        self._starting = asyncio.Lock()
        self._foreign: tuple[type[Exception], ...] = _FOREIGN

    async def answer(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelAnswer:
        client = self._client or await self._start()
        try:
            return await self._ask(client, request_body(request), on_text)
        except self._foreign as error:
            raise translate(error, self._clock) from error

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def prepare(self) -> None:
        """Import the SDK and make the client now, not at the first call."""
        await self._start()

    async def _start(self) -> AsyncAnthropic:
        async with self._starting:
            if self._client is None:
                self._client = await asyncio.to_thread(self._new_client)
            return self._client

    def _new_client(self) -> AsyncAnthropic:
        from aiohttp import ClientError
        from anthropic import AnthropicError, DefaultAioHttpClient

        self._foreign = (AnthropicError, ClientError, *_FOREIGN)
        return _client_class()(
            api_key=self._api_key.reveal(),
            base_url=self._base_url,  # always given: the SDK would read the environment otherwise
            timeout=self._timeout,
            max_retries=0,
            default_headers=self._headers,
            open_telemetry=False,  # turns are traced by our own observer
            http_client=DefaultAioHttpClient(timeout=self._timeout),  # half the processor time of the default client
        )

    async def _ask(self, client: AsyncAnthropic, body: bytes, on_text: Callable[[str], None] | None) -> ModelAnswer:
        from anthropic import AsyncStream

        response = await client.post(
            self._address,
            cast_to=httpx2.Response,
            content=body,
            # A redirect would turn the call into a GET and hand a gateway's headers to whoever it names.
            options={"headers": {"content-type": "application/json"}, "follow_redirects": False},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        assert isinstance(response, httpx2.Response)
        try:
            return await self._read(response, on_text)
        finally:
            await response.aclose()

    async def _read(self, response: httpx2.Response, on_text: Callable[[str], None] | None) -> ModelAnswer:
        reader, builder = StreamReader(), AnswerBuilder(on_text)
        chunks = response.aiter_bytes()
        async for chunk in chunks:
            for data in reader.feed(chunk):
                builder.add(data)
            if builder.error is not None:
                raise self._stream_failure(response, builder.error)
            if builder.done:
                await _drain(chunks)
                return builder.answer()
        for data in reader.finish():
            builder.add(data)
        if builder.error is not None:
            raise self._stream_failure(response, builder.error)
        return builder.answer()

    def _stream_failure(self, response: httpx2.Response, error: StreamError) -> ModelFailure:
        return classify(
            ProviderError(response.status_code, error.type, error.message, dict(response.headers)), self._clock.now()
        )


def _client_class() -> type[AsyncAnthropic]:
    """Return the SDK's client, made to put address and headers together once: only the body differs between our calls.

    Doing it anew takes the SDK a third of a call's processor time. If a release builds its requests elsewhere, this has
    no effect.
    """
    from anthropic import AsyncAnthropic

    class Client(AsyncAnthropic):
        _first: httpx2.Request | None = None
        _url: str = ""

        def _build_request(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:  # noqa: ANN401 - the SDK's
            first = self._first
            if first is None or retries_taken or options.url != self._url:
                first = self._first = super()._build_request(options, retries_taken=retries_taken)
                self._url = options.url
                first.headers.pop("content-length", None)  # every body has its own
            return httpx2.Request(
                first.method, first.url, headers=first.headers, content=options.content, extensions=first.extensions
            )

    Client.__name__ = AsyncAnthropic.__name__  # which the SDK names in its user-agent
    return Client


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end of the body, for a moment at most: only a body read to its end leaves the connection usable."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            async for _ in chunks:
                pass


def translate(error: Exception, clock: Clock) -> ModelFailure:
    """Say what an exception of the SDK, or of its HTTP client, means. Only called once the SDK is imported."""
    from anthropic import (
        AnthropicError,
        APIConnectionError,
        APIResponseValidationError,
        APIStatusError,
        APITimeoutError,
        RetryableError,
    )

    detail = f"{type(error).__name__}: {error}"
    match error:
        case APIStatusError():
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            facts = ProviderError(error.status_code, error.type or "", error.api_message or "", headers)
            return classify(facts, clock.now())
        case APITimeoutError():
            return timed_out(detail)
        case APIConnectionError():
            return _translate_cause(error.__cause__, detail)
        case APIResponseValidationError():
            return answer_cut(detail)
        case RetryableError():
            return connection_lost(detail)
        case AnthropicError():
            return misconfigured(detail)
        case _:
            return _translate_http(error)


def _translate_cause(cause: BaseException | None, detail: str) -> ModelFailure:
    match cause:
        case ValueError():  # the client refuses to write the request: a header or an address that HTTP cannot carry
            return misconfigured(type(cause).__name__)  # its text may quote a header
        case Exception() if isinstance(cause, _FOREIGN):
            return _translate_http(cause)
        case _:
            return connection_lost(detail)


def _translate_http(error: Exception) -> ModelFailure:
    detail = f"{type(error).__name__}: {error}"
    match error:
        case httpx2.TimeoutException():
            return timed_out(detail)
        case (
            httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError() | httpx2.InvalidURL() | httpx2.TooManyRedirects()
        ):
            return misconfigured(type(error).__name__)  # its text may quote a header
        case _:
            return connection_lost(detail)
