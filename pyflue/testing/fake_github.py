"""GitHub's comment endpoints, as far as replies need them: post, list with ``since`` and pages, errors in its words."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from pyflue.testing.http_server import Exchange
from pyflue.testing.posted import Answered, Posted, Record

_ISSUE: Final = re.compile(r"/repos/([^/]+/[^/]+)/issues/([0-9]+)/comments")
_REVIEW: Final = re.compile(r"/repos/([^/]+/[^/]+)/pulls/([0-9]+)/comments(?:/([0-9]+)/replies)?")
_MARKER: Final = re.compile(r"\n*<!-- pyflue:([^<>\s]+) -->\s*\Z")
_LONGEST: Final = 65_536  # characters of a comment


class _Body(Struct, frozen=True):
    body: str


class _Comment(Struct, frozen=True):
    id: int
    node_id: str
    body: str
    html_url: str
    created_at: str
    updated_at: str
    user: dict[str, str | int]


class FakeGithub:
    """Answers below ``/github``. Repositories and issues exist as soon as somebody comments there."""

    name: Final = "github"

    def __init__(self, record: Record) -> None:
        self._record = record
        self._comments: dict[tuple[str, str], list[_Comment]] = {}
        self._last_id = 1000

    def writes(self, exchange: Exchange) -> bool:
        return exchange.method == "POST"

    def answer(self, exchange: Exchange, path: str) -> Answered:
        """Answer one call; ``path`` is what follows the platform's base address."""
        if not re.fullmatch(r"(Bearer|token) \S+", exchange.headers.get("authorization", "")):
            return _problem(401, "Requires authentication")
        path = unquote(path)
        if found := _ISSUE.fullmatch(path):
            repository, number, root, kind = found[1], found[2], "", "issues"
        elif found := _REVIEW.fullmatch(path):
            repository, number, root, kind = found[1], found[2], found[3] or "", "pulls"
        else:
            return _problem(404, "Not Found")
        if exchange.method == "GET" and not root:
            return self._list(exchange, self._comments.get((kind, f"{repository}#{number}"), []))
        if exchange.method == "POST" and (kind == "issues" or root):
            return self._post(exchange, (kind, f"{repository}#{number}"), root)
        return _problem(404, "Not Found")

    def _post(self, exchange: Exchange, place: tuple[str, str], root: str) -> Answered:
        try:
            body = msgspec.json.decode(exchange.body, type=_Body).body
        except (msgspec.DecodeError, UnicodeError):
            return _problem(400, "Problems parsing JSON")
        if not body.strip() or len(body) > _LONGEST:
            return _problem(422, "Validation Failed")
        self._last_id += 1
        now = datetime.now(UTC)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        comment = _Comment(
            id=self._last_id,
            node_id=f"IC_fake{self._last_id}",
            body=body,
            html_url=f"https://github.com/{place[1].replace('#', '/issues/')}#issuecomment-{self._last_id}",
            created_at=stamp,
            updated_at=stamp,
            user={"login": "pyflue-bot", "id": 1},
        )
        self._comments.setdefault(place, []).append(comment)
        marker = _MARKER.search(body)
        key = unquote(marker[1]) if marker else ""
        posted = Posted(
            platform="github",
            id=str(comment.id),
            thread=place[1] + (f":{root}" if root else ""),
            text=body[: marker.start()] if marker else body,
            key=key,
            at=now.timestamp(),
            duplicate=bool(key) and self._record.knows("github", key),
        )
        return Answered(201, msgspec.json.encode(comment), posted=posted)

    def _list(self, exchange: Exchange, comments: list[_Comment]) -> Answered:
        """Return one page in order of creation; ``since`` looks at the time of the last change, to the second."""
        size = min(int(exchange.query.get("per_page", "30")), 100)
        page = int(exchange.query.get("page", "1"))
        since = exchange.query.get("since", "")
        chosen = [comment for comment in comments if comment.updated_at >= since]
        shown = chosen[(page - 1) * size : page * size]
        more = {"link": f'<{exchange.path}?page={page + 1}>; rel="next"'} if len(chosen) > page * size else {}
        return Answered(200, msgspec.json.encode(shown), more)


def _problem(status: int, message: str) -> Answered:
    body = {"message": message, "documentation_url": "https://docs.github.com/rest", "status": str(status)}
    return Answered(status, msgspec.json.encode(body))
