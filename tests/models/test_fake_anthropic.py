"""The fake Messages API: the official SDK must take it for the real one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import anthropic
import httpx2
import msgspec
import pytest
from anthropic.types import MessageParam
from msgspec import Raw

from pyflue.testing.anthropic import FakeAnthropic
from pyflue.testing.anthropic_replies import FakeCall, Reply, Script

HELLO: list[MessageParam] = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as server:
        yield server


@pytest.fixture
async def sdk(fake: FakeAnthropic) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="sk-test", base_url=fake.url, max_retries=0) as client:
        yield client


async def test_the_sdk_reads_an_answer_whole_and_streamed(sdk: anthropic.AsyncAnthropic) -> None:
    whole = await sdk.messages.create(model="fake-think", max_tokens=100, messages=HELLO)
    async with sdk.messages.stream(model="fake-think", max_tokens=100, messages=HELLO) as stream:
        streamed = await stream.get_final_message()

    for message in (whole, streamed):
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.stop_reason == "end_turn"
        assert message.usage.output_tokens > 0
    assert whole.id != streamed.id


async def test_the_sdk_reads_a_streamed_tool_call(fake: FakeAnthropic, sdk: anthropic.AsyncAnthropic) -> None:
    fake.script(Reply(text="I look.", tool_calls=(FakeCall("lookup", Raw(b'{"q":"x"}')),)), model="fake-scripted")

    async with sdk.messages.stream(model="fake-scripted", max_tokens=100, messages=HELLO) as stream:
        message = await stream.get_final_message()

    assert message.stop_reason == "tool_use"
    call = message.content[1]
    assert call.type == "tool_use"
    assert call.input == {"q": "x"}


async def test_the_sdk_raises_its_own_errors(sdk: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.RateLimitError) as limited:
        await sdk.messages.create(model="fake-429-1-9", max_tokens=100, messages=HELLO)
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        async with sdk.messages.stream(model="fake-overloaded", max_tokens=100, messages=HELLO) as stream:
            await stream.get_final_message()

    assert limited.value.response.headers["retry-after"] == "9"
    assert limited.value.type == "rate_limit_error"
    assert limited.value.request_id
    assert (overloaded.value.status_code, overloaded.value.type) == (200, "overloaded_error")


async def test_tokens_are_counted(sdk: anthropic.AsyncAnthropic) -> None:
    assert (await sdk.messages.count_tokens(model="fake-echo", messages=HELLO)).input_tokens > 0


async def test_without_a_key_nothing_is_answered(fake: FakeAnthropic) -> None:
    async with httpx2.AsyncClient(base_url=fake.url) as client:
        answer = await client.post("/v1/messages", json={"model": "fake-echo", "messages": HELLO})

    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("message", ["hi", {"role": "user"}, {"role": "user", "content": None}])
async def test_messages_it_cannot_read_are_refused_as_invalid(fake: FakeAnthropic, message: object) -> None:
    body = {"model": "fake-echo", "messages": [message]}
    async with httpx2.AsyncClient(base_url=fake.url, headers={"x-api-key": "sk-test"}, timeout=5) as client:
        answer = await client.post("/v1/messages", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["request-id"] == answer.json()["request_id"]
    assert fake.running == 0


async def test_requests_are_kept_without_secrets_and_counted(
    fake: FakeAnthropic, sdk: anthropic.AsyncAnthropic
) -> None:
    await sdk.messages.create(model="fake-text", max_tokens=100, messages=HELLO)

    received = fake.requests[0]
    assert (received.model, received.status, received.ended) == ("fake-text", 200, "completed")
    assert "sk-test" not in msgspec.json.encode(received).decode()
    assert received.at <= received.ended_at
    assert (fake.hits["fake-text"], fake.running, fake.peak) == (1, 0, 1)


async def test_it_is_told_what_to_do_and_read_back_over_http(
    fake: FakeAnthropic, sdk: anthropic.AsyncAnthropic
) -> None:
    script = Script((Reply(text="first"), Reply(text="second")), model="fake-echo")
    async with httpx2.AsyncClient(base_url=fake.url) as client:
        await client.post("/_fake/script", content=msgspec.json.encode(script))
        texts: list[str] = []
        for _ in range(3):
            message = await sdk.messages.create(model="fake-echo", max_tokens=100, messages=HELLO)
            texts.extend(block.text for block in message.content if block.type == "text")
        requests = (await client.get("/_fake/requests", params={"model": "fake-echo"})).json()
        stats = (await client.get("/_fake/stats")).json()
        await client.post("/_fake/reset")
        refused = await client.post("/_fake/script", content=b'{"replies": [{"colour": "red"}]}')

    assert texts == ["first", "second", "echo: hello"]
    assert [request["body"]["messages"] for request in requests] == [HELLO] * 3
    assert stats == {"hits": {"fake-echo": 3}, "running": 0, "peak": 1}
    assert len(fake.requests) == 0
    assert refused.status_code == 400


async def test_a_failure_with_a_number_goes_away_after_that_many_requests(sdk: anthropic.AsyncAnthropic) -> None:
    for _ in range(2):
        with pytest.raises(anthropic.InternalServerError):
            await sdk.messages.create(model="fake-529-2", max_tokens=100, messages=HELLO)

    assert (await sdk.messages.create(model="fake-529-2", max_tokens=100, messages=HELLO)).stop_reason == "end_turn"


async def test_directives_in_the_text_are_obeyed(sdk: anthropic.AsyncAnthropic) -> None:
    message = await sdk.messages.create(
        model="fake-directives",
        max_tokens=100,
        messages=[{"role": "user", "content": '[tool:lookup {"q": 1}]'}],
        tools=[{"name": "lookup", "input_schema": {"type": "object"}}],
    )

    assert [(block.name, block.input) for block in message.content if block.type == "tool_use"] == [
        ("lookup", {"q": 1})
    ]


async def test_it_runs_as_a_process_of_its_own_until_it_is_told_to_stop() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pyflue.testing.anthropic", "--events", "3", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]

    async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client:
        stream = await client.messages.create(model="fake-echo", max_tokens=9, messages=HELLO, stream=True)
        kinds = [event.type async for event in stream]
    process.terminate()

    assert kinds.count("content_block_delta") == 3
    assert await asyncio.wait_for(process.wait(), 10) == 0
