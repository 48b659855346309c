"""The parts of GitHub's webhook payloads that we read.

From docs.github.com, "Webhook events and payloads" (issue_comment, issues, pull_request,
pull_request_review_comment). Unknown fields are skipped.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta, Struct

REPLY_MARKER: Final = re.compile(r"<!-- pyflue:[^<>\s]+ -->\s*\Z")
"""How our own comments end, whoever's token posted them."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}\Z")]
NodeId = Annotated[str, Meta(pattern=r"\A[\x21-\x7e]{0,200}\Z")]
Instant = Annotated[datetime, Meta(tz=True)]
Number = Annotated[int, Meta(ge=1)]


class User(Struct, frozen=True):
    login: str
    id: int


class App(Struct, frozen=True):
    id: int


class Repository(Struct, frozen=True):
    id: int
    full_name: Name


class Issue(Struct, frozen=True):
    """An issue or a pull request; for GitHub every pull request is an issue too."""

    number: Number
    title: str = ""
    body: str | None = None
    node_id: NodeId = ""
    html_url: str = ""
    created_at: Instant | None = None
    author_association: str = ""
    performed_via_github_app: App | None = None


class Comment(Struct, frozen=True):
    id: Number
    body: str | None = None
    node_id: NodeId = ""
    html_url: str = ""
    created_at: Instant | None = None
    author_association: str = ""
    in_reply_to_id: int | None = None
    path: str | None = None
    performed_via_github_app: App | None = None


class Subject(Struct, frozen=True):
    """What was said, whichever event told it. ``review_root`` is the first comment of a review thread, else 0."""

    number: int
    title: str
    text: str
    node_id: str
    url: str
    created_at: datetime | None
    author_association: str
    app_id: int
    path: str = ""
    review_root: int = 0


class Payload(Struct, frozen=True):
    """A delivery of one of the events we answer."""

    repository: Repository
    action: str = ""
    sender: User | None = None
    issue: Issue | None = None
    pull_request: Issue | None = None
    comment: Comment | None = None

    def subject(self, event: str) -> Subject | None:
        """Return what was said; None when the payload lacks it."""
        about = self.issue if event in ("issues", "issue_comment") else self.pull_request
        if about is None:
            return None
        if event in ("issues", "pull_request"):
            return _opened(about)
        return _commented(about, self.comment, in_review=event == "pull_request_review_comment")


def opening(event: str) -> str:
    """Return the action by which something new is said in this event."""
    return "opened" if event in ("issues", "pull_request") else "created"


def _opened(issue: Issue) -> Subject:
    return Subject(
        number=issue.number,
        title=issue.title,
        text="\n\n".join(part for part in (issue.title, issue.body or "") if part.strip()),
        node_id=issue.node_id,
        url=issue.html_url,
        created_at=issue.created_at,
        author_association=issue.author_association,
        app_id=issue.performed_via_github_app.id if issue.performed_via_github_app else 0,
    )


def _commented(issue: Issue, comment: Comment | None, *, in_review: bool) -> Subject | None:
    if comment is None:
        return None
    return Subject(
        number=issue.number,
        title=issue.title,
        text=comment.body or "",
        node_id=comment.node_id,
        url=comment.html_url,
        created_at=comment.created_at,
        author_association=comment.author_association,
        app_id=comment.performed_via_github_app.id if comment.performed_via_github_app else 0,
        path=comment.path or "",
        review_root=(comment.in_reply_to_id or comment.id) if in_review else 0,
    )
