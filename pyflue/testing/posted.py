"""What the fake platforms record, and how they are told to fail."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, structs

PlatformName = Literal["github", "slack", "standard"]


class Posted(Struct, frozen=True):
    """One message a fake platform accepted.

    ``thread``: GitHub ``owner/repo#number`` (``:root`` appended in a review thread), Slack ``CHANNEL`` or
    ``CHANNEL:thread_ts``, ``standard`` the thread's name. ``key``: the idempotency key found in marker, metadata or
    ``webhook-id``. ``duplicate``: a message with this key was accepted before. ``text`` is without the marker.
    ``at``: Unix seconds.
    """

    platform: PlatformName
    id: str
    thread: str
    text: str
    key: str
    at: float
    duplicate: bool = False


class Failure(Struct, frozen=True, forbid_unknown_fields=True):
    """Makes the next ``times`` calls to a platform fail.

    ``when``: before or after the message is accepted, or while it is: the answer stops halfway. ``how``: answer
    ``status`` with ``body``, drop the connection, or never answer. ``calls``: posting (``write``) or looking
    (``read``). ``retry_after``: seconds, sent as header.
    """

    platform: PlatformName
    when: Literal["before", "during", "after"] = "before"
    how: Literal["status", "drop", "hang"] = "status"
    calls: Literal["write", "read"] = "write"
    status: int = 500
    body: str = "{}"
    headers: dict[str, str] = {}
    retry_after: int | None = None
    times: int = 1

    def __post_init__(self) -> None:
        if self.when == "during" and self.how == "status":
            raise ValueError("an answer that stops halfway has no status of its own: how is drop or hang")

    @property
    def all_headers(self) -> dict[str, str]:
        return self.headers if self.retry_after is None else {**self.headers, "retry-after": str(self.retry_after)}


class Answered(Struct, frozen=True):
    """How a fake answers when nothing is scripted."""

    status: int
    body: bytes
    headers: dict[str, str] = {}
    posted: Posted | None = None


class Record:
    """Every message accepted, in order, and the failures still to come."""

    def __init__(self) -> None:
        self._messages: list[Posted] = []
        self._keys: set[tuple[str, str]] = set()
        self._failures: list[Failure] = []

    def add(self, posted: Posted) -> None:
        self._messages.append(posted)
        self._keys.add((posted.platform, posted.key))

    def knows(self, platform: PlatformName, key: str) -> bool:
        return (platform, key) in self._keys

    def messages(self, platform: str = "") -> list[Posted]:
        """Return the messages one platform accepted, or all of them; oldest first."""
        return [message for message in self._messages if platform in ("", message.platform)]

    def fail(self, failure: Failure) -> None:
        self._failures.append(failure)

    def take_failure(self, platform: str, calls: str) -> Failure | None:
        """Return the failure due for this call, and use up one of its times."""
        for at, failure in enumerate(self._failures):
            if failure.platform == platform and failure.calls == calls:
                if failure.times > 1:
                    self._failures[at] = structs.replace(failure, times=failure.times - 1)
                else:
                    del self._failures[at]
                return failure
        return None

    def clear(self) -> None:
        self._messages.clear()
        self._keys.clear()
        self._failures.clear()
