"""The floor: the same loop written with the bare Anthropic SDK, everything in memory.

Run as ``python -m bench.bare_sdk URL MODEL``. It reads lines ``KIND TURNS CONCURRENCY`` from standard input, where KIND
is ``helper`` (``messages.stream``, as the SDK's README shows it), ``events`` (``create(stream=True)``) or ``whole``
(``create`` without streaming), does that many turns, and answers each line with the seconds it took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from anthropic import AsyncAnthropic
from anthropic.types import Message, MessageParam, ToolParam, ToolResultBlockParam

from bench.stage import TOOL_RESULT
from bench.webhooks import BODY

MAX_TOKENS = 8_192
SYSTEM = "You answer questions about orders."
TOOLS: list[ToolParam] = [
    {
        "name": "lookup",
        "description": "Look the order up.",
        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
    }
]

Ask = Callable[[AsyncAnthropic, str, list[MessageParam]], Awaitable[Message]]


async def ask_helper(client: AsyncAnthropic, model: str, messages: list[MessageParam]) -> Message:
    async with client.messages.stream(
        model=model, max_tokens=MAX_TOKENS, system=SYSTEM, tools=TOOLS, messages=messages
    ) as stream:
        async for _ in stream.text_stream:
            pass
        return await stream.get_final_message()


async def ask_events(client: AsyncAnthropic, model: str, messages: list[MessageParam]) -> Message:
    """Put the message together from raw events, as one who avoids the helper does."""
    stream = await client.messages.create(
        model=model, max_tokens=MAX_TOKENS, system=SYSTEM, tools=TOOLS, messages=messages, stream=True
    )
    message: Message | None = None
    pieces: dict[int, list[str]] = {}
    async for event in stream:
        match event.type:
            case "message_start":
                message = event.message
            case "content_block_start" if message is not None:
                message.content.append(event.content_block)
                pieces[event.index] = []
            case "content_block_delta":
                delta: Any = event.delta
                pieces[event.index].append(delta.text if delta.type == "text_delta" else delta.partial_json)
            case "message_delta" if message is not None:
                message.stop_reason = event.delta.stop_reason
                message.usage.output_tokens = event.usage.output_tokens
            case _:
                pass
    assert message is not None
    for index, texts in pieces.items():
        block: Any = message.content[index]
        whole = "".join(texts)
        if block.type == "text":
            block.text = whole
        else:
            block.input = msgspec.json.decode(whole) if whole else {}
    return message


async def ask_whole(client: AsyncAnthropic, model: str, messages: list[MessageParam]) -> Message:
    return await client.messages.create(
        model=model, max_tokens=MAX_TOKENS, system=SYSTEM, tools=TOOLS, messages=messages
    )


KINDS: dict[str, Ask] = {"helper": ask_helper, "events": ask_events, "whole": ask_whole}


async def lookup() -> str:
    return TOOL_RESULT


async def work(ask: Ask, client: AsyncAnthropic, model: str) -> str:
    """Answer one question: ask, run the tools, ask again."""
    messages: list[MessageParam] = [{"role": "user", "content": BODY}]
    while True:
        answer = await ask(client, model, messages)
        if answer.stop_reason != "tool_use":
            return "".join(block.text for block in answer.content if block.type == "text")
        messages.append({"role": "assistant", "content": answer.content})
        results: list[ToolResultBlockParam] = [
            {"type": "tool_result", "tool_use_id": block.id, "content": await lookup()}
            for block in answer.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "user", "content": results})


async def work_many(ask: Ask, client: AsyncAnthropic, model: str, turns: int, concurrency: int) -> float:
    left = iter(range(turns))

    async def one_after_another() -> None:
        for _ in left:
            answer = await work(ask, client, model)
            assert answer.endswith(TOOL_RESULT), answer

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one_after_another())
    return time.monotonic() - began


async def main(url: str, model: str) -> None:
    async with AsyncAnthropic(api_key="sk-bench", base_url=url) as client:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind, turns, concurrency = line.split()
            seconds = await work_many(KINDS[kind], client, model, int(turns), int(concurrency))
            print(seconds, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
