"""The bytes of a prompt's prefix are the same before and after a takeover, or prompt caching is paid for in vain."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from pyflue import create_agent
from pyflue.clock import SystemClock
from pyflue.config import Secret
from pyflue.models.anthropic import AnthropicModel
from pyflue.testing.anthropic import FakeAnthropic, Received
from pyflue.testing.anthropic_replies import FakeCall, Reply
from pyflue.testing.flow import Flow
from tests.session.agents import Bench

MARK = b',"cache_control":{"type":"ephemeral"}'


def prefix_of(received: Received) -> bytes:
    """Return the request's bytes up to the end of its messages, without the marks, which may move."""
    body = bytes(received.body).replace(MARK, b"")
    assert body.endswith(b"]}")
    return body.removesuffix(b"]}")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_takeover_asks_with_the_same_bytes() -> None:
    bench = Bench(retry="safe")
    async with FakeAnthropic() as fake:
        odd = Raw(b'{"z": 1,   "a": [1.0, 2e3], "text": "\\u00fc"}')
        fake.script(Reply(text="Let me see.", tool_calls=(FakeCall("work", odd),)), Reply(text="It is done."))
        fake.script(Reply(text="You are welcome."))
        model = AnthropicModel(Secret("sk-ant-test"), base_url=fake.url, clock=SystemClock())
        agent = create_agent(lambda: {"instructions": "Be brief.", "tools": [bench.tool]})
        async with Flow({"agent": agent}, model=model) as flow:
            receipt = await flow.receive("standard", "Please work. “Really.”")
            await bench.reached.wait()
            bench.let_go.set()
            await flow.take_over()
            assert (await flow.outcome(receipt)).status == "completed"
            thanks = await flow.receive("standard", "Thank you.")
            assert (await flow.outcome(thanks)).status == "completed"
        await model.close()
        first, second, third = fake.requests

    assert prefix_of(second).startswith(prefix_of(first))
    assert prefix_of(third).startswith(prefix_of(second))
    assert bytes(odd) in bytes(second.body)
    assert json.loads(bytes(third.body))["messages"][-1]["role"] == "user"
