"""The parts of Slack's Events API payloads that we read.

From docs.slack.dev, "Events API" and the pages of ``message`` and ``app_mention``. Unknown fields are skipped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from msgspec import Meta, Struct

_ID: Final = r"\A[A-Za-z0-9_.-]{0,64}\Z"
SlackId = Annotated[str, Meta(pattern=_ID)]
Stamp = Annotated[str, Meta(pattern=r"\A([0-9]{1,11}\.[0-9]{1,6})?\Z")]
"""A message's ``ts``: seconds and a serial number. It is an id first and a time second."""


class Authorization(Struct, frozen=True):
    """An installation an event was sent for. ``user_id`` is our bot user when ``is_bot``."""

    team_id: SlackId | None = None
    enterprise_id: SlackId | None = None
    user_id: SlackId | None = None
    is_bot: bool = False
    is_enterprise_install: bool = False


class File(Struct, frozen=True):
    name: str | None = None


class Event(Struct, frozen=True):
    type: str = ""
    subtype: str | None = None
    channel: SlackId | None = None
    channel_type: str | None = None
    user: SlackId | None = None
    username: str | None = None
    bot_id: SlackId | None = None
    app_id: SlackId | None = None
    text: str | None = None
    ts: Stamp = ""
    thread_ts: Stamp | None = None
    files: tuple[File, ...] | None = None

    @property
    def is_direct(self) -> bool:
        """Tell whether this was said to us alone; ``app_mention`` has no channel type, but the id tells."""
        return self.channel_type == "im" or (self.channel or "").startswith("D")

    @property
    def said_at(self) -> datetime:
        return datetime.fromtimestamp(int(self.ts.partition(".")[0]), UTC)


class Kind(Struct, frozen=True):
    """What an event says it is. Events other than messages have fields of the same names and other shapes."""

    type: str = ""
    subtype: str | None = None


class Untyped(Struct, frozen=True):
    """The outermost shape of everything Slack posts as JSON."""

    type: str = ""
    challenge: str = ""
    event: Kind = Kind()


class Callback(Struct, frozen=True):
    """An ``event_callback``: one event, and for whom it was sent."""

    event: Event
    event_id: Annotated[SlackId, Meta(min_length=1)]
    team_id: SlackId | None = None
    api_app_id: SlackId | None = None
    authorizations: tuple[Authorization, ...] | None = None

    @property
    def team(self) -> str:
        """Return the installation's workspace or, for an organisation's, the enterprise.

        The top-level ``team_id`` can name another workspace in shared channels, so it is only the last choice.
        """
        for authorization in (self.authorizations or ())[:1]:
            if authorization.is_enterprise_install and authorization.enterprise_id:
                return authorization.enterprise_id
            if authorization.team_id:
                return authorization.team_id
        return self.team_id or ""

    @property
    def bot_users(self) -> frozenset[str]:
        return frozenset(a.user_id for a in self.authorizations or () if a.is_bot and a.user_id)
