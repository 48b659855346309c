"""The ``github`` channel: issue and pull request conversations, from webhooks to comments.

Answered are new issues and pull requests, comments on either, and review comments; a review thread is a
conversation of its own. Everything else, edits and deletions included, is acknowledged and not worked. One
comment can arrive once per hook (repository, organisation, app): its node id is a second key, so it is worked once.

GitHub takes no idempotency key. Each reply ends with a hidden marker naming ours; after an attempt with unknown
outcome the newest comments are searched for it before anything is posted.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal
from urllib.parse import parse_qs, quote

import msgspec
from msgspec import Meta, Raw, Struct

from pyflue.channels.github_payload import REPLY_MARKER, Payload, Subject, opening
from pyflue.channels.http import Call, PlatformApi, Reply, read_answer, unresolved
from pyflue.channels.payloads import FORM, JSON, decode, ignored, media_type
from pyflue.channels.protocol import Answer, InboundEvent, RawRequest, SendFailure, SendReceipt
from pyflue.channels.signatures import check_github, text_keys
from pyflue.channels.splitting import split_text
from pyflue.clock import Clock
from pyflue.config import ChannelSettings, Secrets
from pyflue.dispatches import DedupeKey, OutboxItem
from pyflue.errors import MalformedRequestError

API_URL: Final = "https://api.github.com"
LIMIT: Final = 65_000  # a comment takes 65,536 characters; the rest is for the marker
PAGE: Final = 100  # the most comments the API lists at once
MOST_PAGES: Final = 50
CLOCK_SKEW: Final = timedelta(minutes=10)  # how far our clock and GitHub's may be apart when looking for a marker

_EVENTS: Final = frozenset({"issue_comment", "issues", "pull_request", "pull_request_review_comment"})


class _Destination(Struct, frozen=True, omit_defaults=True):
    owner: str
    repo: str
    number: int
    kind: Literal["issue", "review"] = "issue"
    reply_to: int = 0


class _Comment(Struct):
    id: int = 0
    body: str | None = None


class _Problem(Struct):
    message: str = ""


_Guid = Annotated[str, Meta(pattern=r"\A[\x21-\x7e]{1,128}\Z")]


class GithubChannel:
    """Receives GitHub webhooks and answers with comments."""

    name: str = "github"
    receipt_shape: str = "receipt"

    def __init__(self, settings: ChannelSettings, secrets: Secrets, *, timeout: timedelta, clock: Clock) -> None:
        self._settings = settings
        self._keys = text_keys(secrets.github_webhook_secret)
        self._token = secrets.github_token
        self._base = (settings.api_url or API_URL).rstrip("/")
        self._api = PlatformApi(self.name, timeout=timeout, clock=clock)

    def receive(self, request: RawRequest, now: datetime) -> list[InboundEvent] | Answer:
        """Verify and read a request; see ``Channel.receive``."""
        kind = media_type(self.name, request, (JSON, FORM))
        check_github(self.name, request.headers, request.body, self._keys)
        event = request.headers.get("x-github-event", "")
        delivery = self._delivery(request)
        if event == "ping":
            return ignored("handshake")
        if event not in _EVENTS:
            return ignored("not_handled")
        payload = decode(self.name, self._form_payload(request.body) if kind == FORM else request.body, Payload)
        return self._read(event, payload, delivery)

    def _delivery(self, request: RawRequest) -> str:
        try:
            return msgspec.convert(request.headers.get("x-github-delivery", ""), _Guid)
        except msgspec.ValidationError as error:
            raise MalformedRequestError(self.name, "The x-github-delivery header is missing or malformed.") from error

    def _form_payload(self, body: bytes) -> str:
        try:
            fields = parse_qs(body.decode(), strict_parsing=True, errors="strict", max_num_fields=10)
            return fields["payload"][0]
        except (ValueError, KeyError) as error:
            raise MalformedRequestError(self.name, "The form has no readable payload field.") from error

    def _read(self, event: str, payload: Payload, delivery: str) -> list[InboundEvent] | Answer:
        if payload.action in ("edited", "deleted"):
            return ignored(payload.action)
        if payload.action != opening(event):
            return ignored("not_handled")
        subject = payload.subject(event)
        if subject is None:
            raise MalformedRequestError(self.name, "The payload lacks what its event is about.")
        if self._is_own(payload, subject):
            return ignored("own_message")
        if not subject.text.strip():
            return ignored("empty")
        if not _mentions(subject.text, self._settings.mention):
            return ignored("not_addressed")
        return [_event(event, payload, subject, delivery)]

    def _is_own(self, payload: Payload, subject: Subject) -> bool:
        """Tell whether we wrote this. Without it, an agent would go on answering itself."""
        bot = self._settings.bot.casefold()
        sender = payload.sender
        if bot and sender and bot in (sender.login.casefold(), sender.login.casefold().removesuffix("[bot]")):
            return True
        if bot and sender and bot == str(sender.id):
            return True
        if self._settings.app_id and str(subject.app_id) == self._settings.app_id:
            return True
        return REPLY_MARKER.search(subject.text) is not None

    def split(self, text: str) -> list[str]:
        """Cut a reply into parts; see ``Channel.split``."""
        return split_text(text, LIMIT)

    async def send(self, item: OutboxItem) -> SendReceipt:
        """Post one part as a comment, with its marker; see ``Channel.send``."""
        destination = msgspec.json.decode(item.destination, type=_Destination)
        marker = f"<!-- pyflue:{quote(item.idempotency_key, safe=':')} -->"
        if item.recovered and (found := await self._find(destination, marker, item.created_at)):
            return SendReceipt(str(found), found=True)
        body = msgspec.json.encode({"body": f"{item.body}\n\n{marker}"})
        reply = await self._call(Call("POST", self._post_url(destination), body))
        return SendReceipt(str(read_answer(self.name, reply, _Comment).id))

    async def _find(self, destination: _Destination, marker: str, since: datetime) -> int | None:
        """Return the id of the comment that carries ``marker``, searching everything since the reply was written."""
        params = {
            "per_page": str(PAGE),
            "since": (since - CLOCK_SKEW).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for page in range(1, MOST_PAGES + 1):
            call = Call("GET", self._list_url(destination), params={**params, "page": str(page)})
            try:
                comments = read_answer(self.name, await self._call(call), list[_Comment])
            except SendFailure as failure:
                raise unresolved(failure) from failure
            for comment in comments:
                if comment.body and marker in comment.body:
                    return comment.id
            if len(comments) < PAGE:
                return None
        raise SendFailure("github: too many comments to look through for an earlier attempt.", permanent=True)

    def _post_url(self, to: _Destination) -> str:
        repository = f"{self._base}/repos/{quote(to.owner, safe='')}/{quote(to.repo, safe='')}"
        if to.kind == "review":
            return f"{repository}/pulls/{to.number}/comments/{to.reply_to}/replies"
        return f"{repository}/issues/{to.number}/comments"

    def _list_url(self, to: _Destination) -> str:
        repository = f"{self._base}/repos/{quote(to.owner, safe='')}/{quote(to.repo, safe='')}"
        return f"{repository}/{'pulls' if to.kind == 'review' else 'issues'}/{to.number}/comments"

    async def _call(self, call: Call) -> Reply:
        headers = {
            "authorization": f"Bearer {self._token.reveal()}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
        }
        reply = await self._api.call(msgspec.structs.replace(call, headers=headers))
        if not reply.ok:
            raise self._failure(reply)
        return reply

    def _failure(self, reply: Reply) -> SendFailure:
        """Tell rate limits, which GitHub answers with 403 as well as 429, from refusals."""
        try:
            said = msgspec.json.decode(reply.body, type=_Problem).message
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            said = ""
        wait = self._api.retry_after(reply)
        if reply.status in (403, 429):
            reset = reply.headers.get("x-ratelimit-reset", "")
            if wait is None and reply.headers.get("x-ratelimit-remaining") == "0" and reset[:11].isdecimal():
                wait = self._api.wait_until(datetime.fromtimestamp(int(reset[:11]), UTC))
            if wait is None and "rate limit" in said.casefold():
                wait = timedelta(minutes=1)  # GitHub asks for at least a minute when it names no time
            if wait is not None:
                return SendFailure(f"github limits our rate ({reply.status}).", retry_after=wait)
        if reply.status in (401, 403):
            said = said or "GITHUB_TOKEN is not accepted, or may not comment here"
        return self._api.failure(reply, said)

    async def close(self) -> None:
        """Close connections; idempotent."""
        await self._api.close()


def _event(event: str, payload: Payload, subject: Subject, delivery: str) -> InboundEvent:
    repository = payload.repository
    owner, _, repo = repository.full_name.partition("/")
    source = f"github:{repository.id}"
    # The id stands before the name: a repository that takes an old name over must not find its conversations.
    thread = f"{source}:{repository.full_name}#{subject.number}"
    destination = _Destination(owner, repo, subject.number)
    if subject.review_root:
        thread += f":{subject.review_root}"
        destination = _Destination(owner, repo, subject.number, "review", subject.review_root)
    keys = [DedupeKey(source, f"delivery:{delivery}")]
    if subject.node_id:
        keys.append(DedupeKey(source, f"{event}:{subject.node_id}:{payload.action}"))
    attributes = {
        "platform": "github",
        "event": event,
        "repository": repository.full_name,
        "number": str(subject.number),
        "title": subject.title,
        "url": subject.url,
        "path": subject.path,
        "author_association": subject.author_association,
        "sender": payload.sender.login if payload.sender else "",
        "sender_id": str(payload.sender.id) if payload.sender else "",
    }
    return InboundEvent(
        instance_id=thread,
        keys=tuple(keys),
        text=subject.text,
        attributes={name: value for name, value in attributes.items() if value},
        destination=Raw(msgspec.json.encode(destination)),
        occurred_at=subject.created_at,
    )


def _mentions(text: str, mention: str) -> bool:
    """Tell whether ``mention`` stands in the text as a word of its own, whatever its case; an empty one always does."""
    folded, wanted = text.casefold(), mention.casefold()
    at = folded.find(wanted)
    while wanted and at >= 0:
        around = (folded[at - 1 : at] if at else "") + folded[at + len(wanted) : at + len(wanted) + 1]
        if not any(character.isalnum() or character in "-_" for character in around):
            return True
        at = folded.find(wanted, at + 1)
    return not wanted
