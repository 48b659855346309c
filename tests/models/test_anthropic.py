"""The Anthropic adapter against a real HTTP server. Each quirk of the SDK that bit somebody is a test."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import anthropic
import anthropic.types
import anthropic.types.shared
import httpx2
import msgspec
import pytest
from msgspec import Raw

from pyflue.clock import SystemClock
from pyflue.config import Secret
from pyflue.messages import (
    AssistantMessage,
    Message,
    OtherPart,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolSpec,
    UserMessage,
)
from pyflue.models.anthropic import AnthropicModel, translate
from pyflue.models.protocol import FailureKind, ModelFailure, ModelRequest
from pyflue.testing.anthropic import FakeAnthropic
from pyflue.testing.anthropic_replies import FakeCall, Reply

KEY = "sk-ant-test-0123456789"
MARK = b',"cache_control":{"type":"ephemeral"}'
LOOKUP = ToolSpec("lookup", "Look it up", Raw(b'{"type":"object"}'))


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as server:
        yield server


@pytest.fixture
async def model(fake: FakeAnthropic) -> AsyncIterator[AnthropicModel]:
    adapter = AnthropicModel(Secret(KEY), base_url=fake.url, timeout=5.0)
    yield adapter
    await adapter.close()


def ask(name: str, *messages: Message) -> ModelRequest:
    return ModelRequest(name, "Be brief.", messages or (UserMessage((TextPart("héllo 🦊"),)),), (LOOKUP,))


async def failure_of(model: AnthropicModel, name: str) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await model.answer(ask(name))
    return caught.value


async def test_an_answer_is_complete_and_its_text_was_seen_on_the_way(model: AnthropicModel) -> None:
    seen: list[str] = []

    answer = await model.answer(ask("fake-deltas-30"), seen.append)

    assert answer.text.endswith("echo: héllo 🦊")
    assert "".join(seen) == answer.text
    assert len(seen) == 30
    assert answer.stop_reason == "end_turn"
    assert answer.model == "fake-deltas-30"
    assert answer.usage.output_tokens > 0


async def test_a_tool_call_and_its_result_go_there_and_back_unchanged(
    fake: FakeAnthropic, model: AnthropicModel
) -> None:
    fake.script(Reply(tool_calls=(FakeCall("lookup", Raw(b'{"z": 1,  "a": "\\u00e9"}')),)))
    question = UserMessage((TextPart("look"),))

    first = await model.answer(ask("fake-tool-lookup", question))
    call = first.tool_calls[0]
    results = UserMessage((ToolResultPart(call.id, "42"),))
    second = await model.answer(ask("fake-tool-lookup", question, AssistantMessage(first.content), results))

    assert bytes(call.input) == b'{"z": 1,  "a": "\\u00e9"}'
    assert first.stop_reason == "tool_use"
    assert second.text == "done: 42"
    assert b'"input":{"z": 1,  "a": "\\u00e9"}' in bytes(fake.requests[-1].body)


async def test_reasoning_goes_back_with_its_signature(fake: FakeAnthropic, model: AnthropicModel) -> None:
    question = UserMessage((TextPart("why?"),))

    first = await model.answer(ask("fake-think", question))
    await model.answer(ask("fake-think", question, AssistantMessage(first.content), UserMessage((TextPart("go on"),))))

    thought = first.content[0]
    assert isinstance(thought, ThinkingPart)
    sent_back = json.loads(bytes(fake.requests[-1].messages[1]))["content"][0]
    assert sent_back == {"type": "thinking", "thinking": thought.thinking, "signature": thought.signature}


async def test_a_block_of_an_unknown_type_goes_back_as_it_came(fake: FakeAnthropic, model: AnthropicModel) -> None:
    block = b'{"type":"web_search_tool_result","tool_use_id":"srv_1","content":[{"url":"u"}]}'
    fake.script(Reply(blocks=(Raw(block),), text="found"))
    question = UserMessage((TextPart("search"),))

    first = await model.answer(ask("fake-echo", question))
    await model.answer(ask("fake-echo", question, AssistantMessage(first.content), UserMessage((TextPart("more"),))))

    assert isinstance(first.content[0], OtherPart)
    assert block in bytes(fake.requests[-1].body)


async def test_a_resumed_conversation_sends_the_same_bytes_and_the_next_turn_starts_with_them(
    fake: FakeAnthropic, model: AnthropicModel
) -> None:
    history: list[Message] = [UserMessage((TextPart("one"),))]
    first = await model.answer(ask("fake-think", *history))
    journal = msgspec.json.encode((*history, AssistantMessage(first.content), UserMessage((TextPart("two"),))))

    resumed = AnthropicModel(Secret(KEY), base_url=fake.url)
    for _ in range(2):
        await resumed.answer(ask("fake-think", *msgspec.json.decode(journal, type=tuple[Message, ...])))
    await resumed.close()

    begun, again, once_more = (bytes(request.body) for request in fake.requests)
    assert again == once_more
    assert again.replace(MARK, b"").startswith(begun.replace(MARK, b"").removesuffix(b"]}"))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 64])
async def test_the_answer_does_not_depend_on_how_the_network_cuts_it(
    fake: FakeAnthropic, model: AnthropicModel, chunk_bytes: int, newline: str
) -> None:
    fake.script(Reply(echo=True, thinking="hm", chunk_bytes=chunk_bytes, newline=newline, events=5))

    answer = await model.answer(ask("fake-echo"))

    assert answer.text == "echo: héllo 🦊"


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("fake-400", "fatal", "model_request_invalid"),
        ("fake-401", "fatal", "model_unauthorized"),
        ("fake-402", "fatal", "model_billing"),
        ("fake-403", "fatal", "model_forbidden"),
        ("fake-404", "fatal", "model_not_found"),
        ("fake-408", "transient", "model_timeout"),
        ("fake-409", "transient", "model_unavailable"),
        ("fake-413", "fatal", "model_request_too_large"),
        ("fake-429", "rate_limited", "model_rate_limited"),
        ("fake-500", "transient", "model_unavailable"),
        ("fake-502", "transient", "model_unavailable"),
        ("fake-503", "transient", "model_unavailable"),
        ("fake-504", "transient", "model_timeout"),
        ("fake-529", "overloaded", "model_overloaded"),
        ("fake-overflow", "context_overflow", "model_context_overflow"),
        ("fake-overloaded", "overloaded", "model_overloaded"),
        ("fake-failed", "transient", "model_unavailable"),
        ("fake-truncate", "transient", "model_answer_cut"),
        ("fake-nostop", "transient", "model_answer_cut"),
        ("fake-hangup", "transient", "model_connection"),
        ("fake-reset", "transient", "model_connection"),
    ],
)
async def test_every_way_a_call_can_fail_is_classified_and_asked_only_once(
    fake: FakeAnthropic, model: AnthropicModel, name: str, kind: FailureKind, code: str
) -> None:
    failure = await failure_of(model, name)

    assert (failure.kind, failure.reason_code) == (kind, code)
    assert fake.hits[name] == 1
    assert KEY not in f"{failure}{failure.detail}"
    assert "héllo" not in f"{failure}{failure.detail}"


async def test_a_long_retry_after_is_reported_and_not_slept_through(model: AnthropicModel) -> None:
    async with asyncio.timeout(5):
        failure = await failure_of(model, "fake-429-1-86400")

    assert failure.retry_after == timedelta(hours=1)
    assert (await model.answer(ask("fake-429-1-86400"))).stop_reason == "end_turn"


async def test_the_providers_request_id_reaches_the_operator(model: AnthropicModel) -> None:
    assert "request req_" in (await failure_of(model, "fake-500")).detail


async def test_an_error_page_that_is_not_the_apis_is_judged_by_its_status(fake: FakeAnthropic) -> None:
    gateway = AnthropicModel(Secret(KEY), base_url=f"{fake.url}/_fake/nowhere")

    failure = await failure_of(gateway, "fake-echo")

    assert failure.reason_code == "model_not_found"
    await gateway.close()


async def test_a_redirect_is_not_followed_and_said_to_be_one(fake: FakeAnthropic, model: AnthropicModel) -> None:
    for status in (301, 302, 307, 308):
        fake.script(Reply(status=status, headers={"location": f"{fake.url}/v1/messages"}))
        failure = await failure_of(model, "fake-echo")

        assert (failure.kind, failure.reason_code) == ("fatal", "model_misconfigured")
        assert "ANTHROPIC_BASE_URL" in str(failure)
    assert fake.hits["fake-echo"] == 4


async def test_silence_longer_than_the_timeout_is_a_transient_failure(fake: FakeAnthropic) -> None:
    impatient = AnthropicModel(Secret(KEY), base_url=fake.url, timeout=0.2)

    for name in ("fake-silence", "fake-slow-60000"):
        failure = await failure_of(impatient, name)
        assert (failure.kind, failure.reason_code) == ("transient", "model_timeout")

    await impatient.close()
    await fake.wait_until_idle()


@pytest.mark.parametrize("name", ["fake-silence", "fake-slow-60000"])
async def test_cancelling_a_call_closes_its_connection_at_once(
    fake: FakeAnthropic, model: AnthropicModel, name: str
) -> None:
    call = asyncio.create_task(model.answer(ask(name)))
    await fake.wait_for_requests(1)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    await fake.wait_until_idle(timeout=2)
    assert fake.requests[-1].ended == "disconnected"


async def test_calls_one_after_the_other_share_a_connection(fake: FakeAnthropic, model: AnthropicModel) -> None:
    for _ in range(3):
        await model.answer(ask("fake-echo"))

    assert fake.connections == 1


async def test_calls_at_the_same_time_do_not_mix(fake: FakeAnthropic, model: AnthropicModel) -> None:
    texts = [f"message {number}" for number in range(20)]
    requests = [ask("fake-drip-1", UserMessage((TextPart(text),))) for text in texts]

    answers = await asyncio.gather(*(model.answer(request) for request in requests))

    assert [answer.text for answer in answers] == [f"echo: {text}" for text in texts]
    assert fake.peak > 1


async def test_nobody_listening_is_a_transient_failure() -> None:
    async with FakeAnthropic() as fake:
        gone = AnthropicModel(Secret(KEY), base_url=fake.url)

    failure = await failure_of(gone, "fake-echo")

    assert (failure.kind, failure.reason_code) == ("transient", "model_connection")
    await gone.close()


async def test_an_address_that_cannot_work_is_fatal() -> None:
    model = AnthropicModel(Secret(KEY), base_url="ftp://example.invalid")

    failure = await failure_of(model, "fake-echo")

    assert (failure.kind, failure.reason_code) == ("fatal", "model_misconfigured")
    await model.close()


async def test_later_requests_have_the_headers_of_the_first_and_their_own_length(
    fake: FakeAnthropic, model: AnthropicModel
) -> None:
    await model.answer(ask("fake-echo"))
    await model.answer(ask("fake-echo", UserMessage((TextPart("a longer question " * 50),))))

    first, second = fake.requests
    assert int(second.headers["content-length"]) == len(second.body) > len(first.body)
    own = {"content-length"}
    assert {**second.headers, **dict.fromkeys(own)} == {**first.headers, **dict.fromkeys(own)}
    assert {"anthropic-version", "x-stainless-lang"} <= set(second.headers)


async def test_a_header_that_cannot_be_sent_is_fatal_and_not_quoted(fake: FakeAnthropic) -> None:
    model = AnthropicModel(Secret(KEY), base_url=fake.url, headers={"x-gateway": "hidden\nvalue"})

    failure = await failure_of(model, "fake-echo")

    assert (failure.kind, failure.reason_code) == ("fatal", "model_misconfigured")
    assert "hidden" not in f"{failure}{failure.detail}"
    await model.close()


async def test_gateway_headers_are_sent_and_the_environment_is_not_asked(
    fake: FakeAnthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "from-the-environment")
    model = AnthropicModel(Secret(KEY), base_url=fake.url, headers={"x-gateway": "blue"})

    await model.answer(ask("fake-echo"))

    assert fake.requests[-1].headers["x-gateway"] == "blue"
    assert fake.requests[-1].headers["user-agent"].startswith("AsyncAnthropic/Python")
    assert "from-the-environment" not in json.dumps(fake.requests[-1].headers)
    await model.close()


async def test_closing_twice_is_fine_and_an_unused_model_closes_too(fake: FakeAnthropic) -> None:
    model = AnthropicModel(Secret(KEY), base_url=fake.url)

    await model.close()
    await model.answer(ask("fake-echo"))
    await model.close()
    await model.close()


def test_naming_the_module_does_not_import_the_sdk() -> None:
    code = "import sys, pyflue.models.resolve; sys.exit('anthropic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def walk(root: type[BaseException]) -> Iterator[type[BaseException]]:
    for found in root.__subclasses__():
        yield found
        yield from walk(found)


SDK_KINDS: dict[str, FailureKind] = {
    "APIConnectionError": "transient",
    "APIResponseValidationError": "transient",
    "APITimeoutError": "transient",
    "AuthenticationError": "fatal",
    "BadRequestError": "fatal",
    "ClientClosedRequestError": "fatal",
    "ConflictError": "transient",
    "ContentTooLargeError": "fatal",
    "GatewayTimeoutError": "transient",
    "HTTPNotImplementedError": "fatal",
    "InternalServerError": "transient",
    "NotFoundError": "fatal",
    "OverloadedError": "overloaded",
    "PaymentRequiredError": "fatal",
    "PermissionDeniedError": "fatal",
    "PreconditionFailedError": "fatal",
    "RateLimitError": "rate_limited",
    "RequestHeaderFieldsTooLargeError": "fatal",
    "RequestTimeoutError": "transient",
    "RetryableError": "transient",
    "ServiceUnavailableError": "transient",
    "UnprocessableEntityError": "fatal",
}
SDK_BASES = {"AnthropicError", "APIError", "APIStatusError", "APIWebhookValidationError"}
"""Never raised by a messages call themselves."""
SDK_SETUP: dict[str, FailureKind] = {"CredentialsError": "fatal", "IdentityTokenFileError": "fatal"}


def sdk_error(kind: type[BaseException]) -> BaseException:
    request = httpx2.Request("POST", "http://api.invalid/v1/messages")
    if issubclass(kind, anthropic.APIStatusError):
        status = getattr(kind, "status_code", None) or 500
        return kind("no", response=httpx2.Response(status, request=request), body=None)
    if issubclass(kind, anthropic.APIResponseValidationError):
        return kind(httpx2.Response(200, request=request), body=None)
    if issubclass(kind, anthropic.APITimeoutError):
        return kind(request)
    if issubclass(kind, anthropic.APIConnectionError):
        return kind(request=request)
    return kind("no")


def test_every_exception_the_sdk_declares_is_one_we_know() -> None:
    declared = {
        value.__name__
        for value in vars(anthropic._exceptions).values()
        if isinstance(value, type) and issubclass(value, anthropic.AnthropicError)
    }

    assert declared == {*SDK_KINDS, *SDK_BASES, *SDK_SETUP}


def test_every_exception_of_the_sdk_is_classified_as_its_nearest_known_base() -> None:
    kinds = {**SDK_KINDS, **SDK_SETUP}

    for found in set(walk(anthropic.AnthropicError)):
        expected = next((kinds[base.__name__] for base in found.__mro__ if base.__name__ in kinds), None)
        if expected is None:  # a base, or an error of SDK features that a messages call does not use
            assert found.__name__ in SDK_BASES or not issubclass(found, anthropic.APIError), found.__name__
            continue
        error = sdk_error(found)
        assert isinstance(error, Exception)
        assert translate(error, SystemClock()).kind == expected, found.__name__


HTTP_FATAL = {"UnsupportedProtocol", "LocalProtocolError", "TooManyRedirects", "InvalidURL"}


def http_error(kind: type[Exception]) -> Exception:
    return kind() if issubclass(kind, httpx2.StreamError) else kind("no")


def test_every_exception_of_the_http_client_is_classified() -> None:
    roots = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.CookieConflict, httpx2.StreamError)
    known = {*roots, *(found for root in roots for found in walk(root))}
    public = {value for value in vars(httpx2).values() if isinstance(value, type) and issubclass(value, Exception)}

    assert public - known == set()
    for found in known - {httpx2.HTTPStatusError, httpx2.StreamError}:  # neither is raised as itself
        assert issubclass(found, Exception)
        error = http_error(found)
        wrapped = anthropic.APIConnectionError(request=httpx2.Request("POST", "http://api.invalid"))
        wrapped.__cause__ = error
        expected = "fatal" if found.__name__ in HTTP_FATAL else "transient"
        assert translate(error, SystemClock()).kind == expected, found.__name__
        assert translate(wrapped, SystemClock()).kind == expected, found.__name__
