"""Rows of the crash matrix in which the agent answers by itself, with the ``reply`` tool: it posts exactly once."""

from __future__ import annotations

from collections import Counter

import pytest

from pyflue.dispatches import ReplyMode
from pyflue.testing.recorded import History
from tests.flow.deployment import Deployment
from tests.flow.run import running
from tests.flow.survival import judge, survive

REPLY = '[tool:reply {"text": "It left today."}]'
REPLY_AND_PAY = '[tool:reply {"text": "It is paid."}] [tool:pay {"amount": 5}]'
TWICE = '[tool:reply {"text": "Looking."}] [tool:reply {"text": "It is there."}]'
# One process runs all of it: the deployments are started once, and no two heavy tests run at a time.
pytestmark = pytest.mark.xdist_group("flow")

AROUND = ("before_reply", "after_reply", "before_settle", "after_settle")
DELIVERING = ("before_send", "after_send", "after_sent")
KEPT = ("before_reply", "after_reply", "before_kept_started", "after_kept_result", "after_send")


@pytest.fixture(scope="module")
def reply_mode() -> ReplyMode:
    """How the channels of this module's deployments reply."""
    return "tool"


@pytest.mark.parametrize("point", [*AROUND, *DELIVERING])
async def test_what_the_reply_tool_posts_is_posted_once(deployment: Deployment, point: str) -> None:
    async with running(deployment) as run:
        await survive(run, point, REPLY, REPLY_AND_PAY, TWICE)

        every_reply_is_there_once(await judge(run))


@pytest.mark.parametrize("point", KEPT)
async def test_so_it_is_where_the_result_is_in_a_store_of_the_agents_own(deployment: Deployment, point: str) -> None:
    async with running(deployment, kept=True) as run:
        await survive(run, point, REPLY, REPLY_AND_PAY, TWICE)

        history = await judge(run)
        every_reply_is_there_once(history)
        assert set(history.stored.kept) == set(history.stored.lines)


def every_reply_is_there_once(history: History) -> None:
    """Fail unless the platforms hold what each message asked to be posted, and nothing else."""
    wanted = [text for row in history.stored.dispatches for text in asked_for(row.input.text)]
    received = [post.text for post in history.posted if not post.duplicate]

    assert Counter(received) == Counter(wanted)


def asked_for(text: str) -> list[str]:
    """Return the replies a message asks for."""
    return [part.partition('"}')[0] for part in text.split('[tool:reply {"text": "')[1:]]
