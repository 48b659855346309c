"""How an error becomes an HTTP answer: the only place that knows status codes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from pyflue.channels.protocol import Answer
from pyflue.errors import (
    BodyTooLargeError,
    IdempotencyConflictError,
    InvalidInputError,
    MalformedRequestError,
    MediaTypeError,
    PyFlueError,
    QueueFullError,
    SignatureError,
    StoreUnavailableError,
    UnknownChannelError,
)
from pyflue.wire import Accepted, AcceptedMany, Health, Problem

STATUS: Final[tuple[tuple[type[PyFlueError], int], ...]] = (  # the first that fits, so the special before the general
    (MalformedRequestError, 400),
    (SignatureError, 401),
    (UnknownChannelError, 404),
    (IdempotencyConflictError, 409),
    (BodyTooLargeError, 413),
    (MediaTypeError, 415),
    (QueueFullError, 429),
    (InvalidInputError, 400),
    (StoreUnavailableError, 503),
)
STORE_RETRY_AFTER: Final = 5  # seconds; a database that fails over is back within that, or a second try finds out
CODES: Final[Mapping[int, str]] = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 408: "body_timeout"}


class HttpAnswer(Struct, frozen=True):
    """An answer ready to be sent. ``code`` is for the log: a problem's code, ``accepted``, or why nothing was."""

    status: int
    body: bytes
    media_type: str
    code: str
    headers: tuple[tuple[str, str], ...] = ()


def body_answer(status: int, body: Accepted | AcceptedMany | Health, code: str) -> HttpAnswer:
    return HttpAnswer(status, msgspec.json.encode(body), "application/json", code)


def channel_answer(answer: Answer) -> HttpAnswer:
    """Pass on what a channel wants said although nothing was admitted."""
    return HttpAnswer(answer.status, answer.body, answer.media_type, answer.reason)


def error_answer(error: PyFlueError) -> HttpAnswer | None:
    """Answer an error that is the caller's, or the store's; None for what must not be explained to a caller."""
    status = next((status for kind, status in STATUS if isinstance(error, kind)), None)
    if status is None:
        return None
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, QueueFullError):
        headers = (("retry-after", str(error.retry_after_seconds)),)
    elif isinstance(error, StoreUnavailableError):
        headers = (("retry-after", str(STORE_RETRY_AFTER)),)
    elif isinstance(error, BodyTooLargeError):
        headers = (("connection", "close"),)  # the rest of the body is not read
    code = "store_unavailable" if isinstance(error, StoreUnavailableError) else error.code
    return problem_answer(status, code, str(error), headers=headers)


def http_answer(status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> HttpAnswer:
    """Answer what HTTP itself refuses: no such path, not that method."""
    return problem_answer(status, CODES.get(status, "http_error"), detail, headers=headers)


def failure_answer(reference: str) -> HttpAnswer:
    """Answer a failure of ours. Nothing of it is told but where to find it in the log."""
    detail = "The server failed to handle this request. An operator can find it in the log by its reference."
    return problem_answer(500, "internal", detail, reference=reference)


def problem_answer(
    status: int, code: str, detail: str, *, reference: str = "", headers: tuple[tuple[str, str], ...] = ()
) -> HttpAnswer:
    body = Problem(f"urn:pyflue:problem:{code}", HTTPStatus(status).phrase, status, detail, code, reference)
    return HttpAnswer(status, msgspec.json.encode(body), "application/problem+json", code, headers)
