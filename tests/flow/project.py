"""The project that the crash matrix and the chaos runs deploy: one agent whose tools leave traces on disk.

Threads with ``kept`` in their name have their conversation in a store the agent brings.
"""

from __future__ import annotations

from pathlib import Path

from pyflue.dispatches import ReplyMode

AGENT = '''\
import asyncio
import functools
import json
import os
import secrets
from pathlib import Path

from pyflue import SQLiteSessionStore, create_agent, tool
from pyflue.testing.crash import Crashes, crashing_conversations
from pyflue.tools.tool import ToolContext


@functools.cache
def conversations(path, points):
    return crashing_conversations(SQLiteSessionStore(path), Crashes(Path(points)))


def configure(context):
    crashes = Crashes(Path(context.env["CRASH_POINTS"]))
    effects = context.env["EFFECTS"]

    def leave_trace(key, name, safe, result=""):
        line = json.dumps({"key": key, "tool": name, "safe": safe, "result": result}) + "\\n"
        file = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line.encode())
        os.fsync(file)
        os.close(file)

    @tool
    async def pay(amount: int, context: ToolContext) -> str:
        """Move money, which must not happen twice."""
        crashes.reach("before", "tool.effect")
        leave_trace(context.idempotency_key, "pay", False)
        crashes.reach("after", "tool.effect")
        return f"paid {amount}"

    @tool(retry="safe")
    async def look(name: str, context: ToolContext) -> str:
        """Look something up."""
        leave_trace(context.idempotency_key, "look", True)
        return f"{name} is fine"

    @tool(retry="safe")
    async def ship(parcel: str, context: ToolContext) -> str:
        """Ship a parcel in durable steps."""

        async def reserve():
            number = secrets.token_hex(4)
            leave_trace(context.idempotency_key, "ship", True, number)
            return number

        return f"shipped {parcel} as " + await context.step("reserve", reserve)

    @tool(retry="safe")
    async def wait(seconds: float, context: ToolContext) -> str:
        """Take a while."""
        leave_trace(context.idempotency_key, "wait", True)
        await asyncio.sleep(seconds)
        return "waited"

    config = {"model": "anthropic/fake-directives", "instructions": "Be exact.", "tools": [pay, look, ship, wait]}
    if "kept" not in context.id.lower():
        return config
    return {**config, "persist": conversations(context.env["CONVERSATIONS"], context.env["CRASH_POINTS"])}


default = create_agent(configure)
'''

SETTINGS = """\
[worker]
turns = 20
heartbeat = 0.2
lease = {lease}
grace = 0.5
rescue = 0.2
drain = 4.0
fence_margin = 0.5
judge_pause = 0.3

[retry]
first_delay = 0.1
longest_delay = 0.5
rate_limit_delay = 0.2

[outbox]
first_delay = 0.1
longest_delay = 0.5
timeout = 5.0

[models.anthropic]
timeout = 10.0

[channels.standard]
agent = "clerk"
reply = "{reply}"
reply_url = "{reply_url}"

[channels.github]
agent = "clerk"
reply = "{reply}"
bot = "pyflue-bot"

[channels.slack]
agent = "clerk"
reply = "{reply}"
"""


def write_project(root: Path, reply_url: str, lease: float, reply: ReplyMode) -> None:
    """Write the project's files into ``root``. ``lease`` in seconds; ``reply``: how all channels reply."""
    (root / "agents").mkdir(parents=True)
    (root / "agents" / "clerk.py").write_text(AGENT)
    (root / "pyflue.toml").write_text(SETTINGS.format(reply_url=reply_url, lease=lease, reply=reply))
