"""What every row of the crash matrix does: talk while a process dies, see it come back, and have the run judged."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import pytest

from pyflue.testing.recorded import Bounds, History
from tests.flow.run import Run
from tests.waiting import until

CHANNELS = ("standard", "github", "slack")
SETTLE_WITHIN = 25.0  # seconds; on an idle machine it takes about two


async def converse(run: Run, channel: str, *messages: str) -> None:
    """Say the messages in a thread of their own, each once the one before is acknowledged."""
    thread = run.thread(channel)
    for message in messages:
        await run.say(channel, thread, message)


async def converse_on(run: Run, channels: Sequence[str], *messages: str) -> None:
    """Hold the same conversation on several channels at once."""
    async with asyncio.TaskGroup() as group:
        for channel in channels:
            group.create_task(converse(run, channel, *messages))


async def survive(
    run: Run, point: str, *messages: str, after: str = "", channels: Sequence[str] = CHANNELS, nth: int = 1
) -> None:
    """Hold conversations while a process dies at ``point``'s ``nth`` passage, ``after`` one has died elsewhere."""
    crashes = run.deployment.crashes
    with run.fault(point):
        if after:
            crashes.arm(after)
        crashes.arm(point, nth)
        await converse_on(run, channels, *messages)
        await _talk_until_dead(run, channels, *messages)
        await until_back(run)


async def _talk_until_dead(run: Run, channels: Sequence[str], *messages: str) -> None:
    """Go on talking until a process has died: on a busy machine the rescue may win all races to the wake-ups."""
    for _ in range(6):
        try:
            await until(lambda: not run.deployment.crashes.armed(), 4)
            return
        except TimeoutError:
            await converse_on(run, channels, *messages)
    pytest.fail("no process ever came to the point where it was to die")


async def until_back(run: Run) -> None:
    """Return once a process was killed and everything is up again."""
    await until(lambda: -signal.SIGKILL in [code for _, code in run.deployment.starts], 10)
    await run.deployment.all_up()


async def judge(run: Run) -> History:
    """Say one thing more, which nothing disturbs, and have the whole run checked."""
    await converse(run, "standard", "Are you still there?")
    await run.until_quiet()
    return await run.verdict(Bounds(settle_within=SETTLE_WITHIN))
