"""Correctly signed sample deliveries, as the platforms send them: for ``pyflue send`` and for tests.

The same ``delivery_id`` gives the same message with the same ids, so sending a sample twice shows how a duplicate
is answered; another ``delivery_id`` gives another message.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from pyflue.channels.payloads import JSON
from pyflue.channels.protocol import RawRequest
from pyflue.channels.signatures import sign_github, sign_slack, sign_standard, standard_keys, text_keys
from pyflue.channels.standard import StandardMessage
from pyflue.config import Secret
from pyflue.errors import InvalidInputError

DEFAULT_THREADS: Final = {"github": "octo/demo#1", "slack": "C0DEMO", "standard": "demo"}
BOT_USER: Final = "U0PYFLUE"  # the bot user the Slack samples mention

_DELIVERY_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_GITHUB_THREAD: Final = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)#(?P<number>[1-9][0-9]*)(?::(?P<root>[0-9]+))?")
_SLACK_THREAD: Final = re.compile(r"(?P<channel>[A-Z0-9]+)(?::(?P<ts>[0-9]{1,11}\.[0-9]{1,6}))?")


class SampleMessage(Struct, frozen=True):
    """What a sample delivery says, where and by whom.

    ``thread``: GitHub ``owner/repo#number``, with ``:root`` for a review thread; Slack ``CHANNEL`` or
    ``CHANNEL:thread_ts`` (a channel starting with D is a direct conversation); ``standard``: any name. Empty: a
    default of the channel's.
    """

    text: str
    delivery_id: str
    thread: str = ""
    sender: str = "ada"


class SignedDelivery(Struct, frozen=True):
    """A request ready to be sent: POST ``body`` with ``headers`` to ``path`` of the front."""

    path: str
    headers: dict[str, str]
    body: bytes

    def as_request(self) -> RawRequest:
        """Return it as the front would hand it to the channel."""
        return RawRequest("POST", self.headers, self.body)


def signed_delivery(channel: str, secret: Secret, message: SampleMessage, now: datetime) -> SignedDelivery:
    """Write a message as ``channel`` would deliver it at ``now``, signed with the first key of ``secret``.

    Raises:
        InvalidInputError: there is no such channel, no secret, the thread is not written as the channel needs it, or the
            message holds what cannot be sent.
        ConfigurationError: the ``standard`` secret is not base64.
    """
    if channel not in DEFAULT_THREADS:
        known = ", ".join(DEFAULT_THREADS)
        raise InvalidInputError(f"There is no channel kind {channel!r}.", fix=f"Choose one of {known}.")
    if not secret.reveal().strip():
        raise InvalidInputError(f"The secret of channel {channel!r} is not set.", fix="Set it in the environment.")
    message = msgspec.structs.replace(message, thread=message.thread or DEFAULT_THREADS[channel])
    _check(message)
    if channel == "github":
        body, headers = _github(message, now)
        headers |= sign_github(text_keys(secret)[0], body)
    elif channel == "slack":
        body = _slack(message)
        headers = sign_slack(text_keys(secret)[0], body, now)
    else:
        body = _standard(message)
        headers = sign_standard(_shared_key(channel, secret), message.delivery_id, body, now)
    return SignedDelivery(f"/webhooks/{channel}", {"content-type": JSON, **headers}, body)


def _check(message: SampleMessage) -> None:
    if not _DELIVERY_ID.fullmatch(message.delivery_id):
        fix = "Write 1 to 128 visible ASCII characters."
        raise InvalidInputError(f"{message.delivery_id!r} cannot be the id of a delivery.", fix=fix)
    try:
        f"{message.text}{message.thread}{message.sender}".encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("The message is not UTF-8.", fix="Write it in UTF-8.") from error


def _shared_key(channel: str, secret: Secret) -> bytes:
    keys = standard_keys(channel, secret).shared
    if not keys:
        raise InvalidInputError("Only the sender can sign with a whpk_ key.", fix="Add a whsec_ key to the secret.")
    return keys[0]


def _number(text: str, below: int) -> int:
    """Derive a stable positive number from a name."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % (below - 1) + 1


def _standard(message: SampleMessage) -> bytes:
    return msgspec.json.encode(StandardMessage(message.thread, message.text, sender=message.sender))


def _github(message: SampleMessage, now: datetime) -> tuple[bytes, dict[str, str]]:
    thread = _GITHUB_THREAD.fullmatch(message.thread)
    if thread is None:
        raise InvalidInputError(f"{message.thread!r} is not a GitHub thread.", fix="Write it like owner/repo#12.")
    repository, number, root = thread["repository"], int(thread["number"]), thread["root"]
    comment_id = _number(message.delivery_id, 2**31)
    page = f"https://github.com/{repository}/{'pull' if root else 'issues'}/{number}"
    user = {"login": message.sender, "id": _number(message.sender, 2**24), "type": "User"}
    issue = {"number": number, "title": "A sample", "html_url": page, "user": user, "body": "It began here."}
    comment: dict[str, object] = {
        "id": comment_id,
        "node_id": f"IC_sample{comment_id}",
        "user": user,
        "body": message.text,
        "html_url": f"{page}#issuecomment-{comment_id}",
        "created_at": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "author_association": "MEMBER",
    }
    if root:
        comment |= {"in_reply_to_id": int(root), "path": "sample.py"}
    owner = {"login": repository.partition("/")[0]}
    payload = {
        "action": "created",
        "pull_request" if root else "issue": issue,
        "comment": comment,
        "repository": {"id": _number(repository, 2**31), "full_name": repository, "owner": owner},
        "sender": user,
    }
    event = "pull_request_review_comment" if root else "issue_comment"
    return msgspec.json.encode(payload), {"x-github-event": event, "x-github-delivery": message.delivery_id}


def _slack(message: SampleMessage) -> bytes:
    thread = _SLACK_THREAD.fullmatch(message.thread)
    if thread is None:
        raise InvalidInputError(
            f"{message.thread!r} is not a Slack thread.", fix="Write it like C024BE91L or C024BE91L:TS."
        )
    channel, direct = thread["channel"], thread["channel"].startswith("D")
    # The ts is the message's id, so it comes from the delivery id and not from the clock.
    ts = (
        f"{1_700_000_000 + _number(message.delivery_id, 10_000_000)}.{_number(message.delivery_id + '.', 1_000_000):06}"
    )
    text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    event = {
        "type": "message" if direct else "app_mention",
        "channel": channel,
        "user": re.sub(r"[^A-Za-z0-9_.-]", "_", message.sender)[:64],
        "text": text if direct else f"<@{BOT_USER}> {text}",
        "ts": ts,
        "event_ts": ts,
    }
    event |= {"channel_type": "im"} if direct else {}
    event |= {"thread_ts": thread["ts"]} if thread["ts"] else {}
    payload = {
        "type": "event_callback",
        "event_id": f"Ev{_number(message.delivery_id, 2**60):X}",
        "event_time": int(ts.partition(".")[0]),
        "team_id": "T0DEMO",
        "api_app_id": "A0PYFLUE",
        "event": event,
        "authorizations": [{"team_id": "T0DEMO", "user_id": BOT_USER, "is_bot": True, "is_enterprise_install": False}],
    }
    return msgspec.json.encode(payload)
