"""What a failed model call means, decided once.

An adapter turns whatever its SDK raised into facts (``ProviderError``, or one of the functions below) and gets a
``ModelFailure`` back. The error type the provider wrote counts before the HTTP status: an overload can arrive
inside a 200 stream. The caller sees our words only; what the provider wrote goes to ``detail``, cut short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct

from pyflue.models.protocol import FailureKind, ModelFailure

LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
"""Longer pauses are cut to this: a header once asked for weeks, and the default budget of a dispatch is one hour."""

_LONGEST_DETAIL: Final = 500  # characters of the provider's own message kept for the operator

_OVERFLOW_WORDS: Final = ("prompt is too long", "context window", "context limit", "context length", "too many tokens")


class ProviderError(Struct, frozen=True):
    """An error answer of a provider: HTTP ``status`` (200 inside a stream), its error ``type`` and ``message``.

    Header names are lower case. ``type`` is empty when the body was not the provider's error shape.
    """

    status: int
    type: str = ""
    message: str = ""
    headers: Mapping[str, str] = {}


class _Verdict(Struct, frozen=True):
    kind: FailureKind
    code: str
    what: str
    fix: str = ""


_RATE_LIMITED: Final = _Verdict("rate_limited", "model_rate_limited", "The model provider limits our rate.")
_OVERLOADED: Final = _Verdict("overloaded", "model_overloaded", "The model provider is overloaded.")
_UNAVAILABLE: Final = _Verdict("transient", "model_unavailable", "The model provider had an error of its own.")
_TIMED_OUT: Final = _Verdict("transient", "model_timeout", "The model provider did not answer in time.")
_OVERFLOW: Final = _Verdict(
    "context_overflow",
    "model_context_overflow",
    "The conversation is longer than the model can read.",
    "Start another session, or choose a model with a larger context window.",
)
_UNAUTHORIZED: Final = _Verdict(
    "fatal", "model_unauthorized", "The model provider refused our key.", "Check ANTHROPIC_API_KEY."
)
_FORBIDDEN: Final = _Verdict(
    "fatal",
    "model_forbidden",
    "The key may not use this model.",
    "Check which models and workspaces the key in ANTHROPIC_API_KEY is allowed.",
)
_NO_CREDIT: Final = _Verdict(
    "fatal", "model_billing", "The model provider's account cannot pay for this call.", "Check the account's billing."
)
_NOT_FOUND: Final = _Verdict(
    "fatal",
    "model_not_found",
    "The model provider has no such model, or no such address.",
    "Check the agent's model name and, behind a gateway, ANTHROPIC_BASE_URL.",
)
_TOO_LARGE: Final = _Verdict(
    "fatal", "model_request_too_large", "The request is larger than the model provider takes.", "Send less at once."
)
_INVALID: Final = _Verdict(
    "fatal",
    "model_request_invalid",
    "The model provider refused the request as invalid.",
    "Look up the provider's reason in the log; a tool's schema or a setting is the usual cause.",
)
_REDIRECTED: Final = _Verdict(
    "fatal",
    "model_misconfigured",
    "The address of the model provider only sends us to another one.",
    "Set ANTHROPIC_BASE_URL to where it leads, often https:// instead of http://.",
)

_BY_TYPE: Final[Mapping[str, _Verdict]] = {
    "rate_limit_error": _RATE_LIMITED,
    "overloaded_error": _OVERLOADED,
    "api_error": _UNAVAILABLE,
    "conflict_error": _UNAVAILABLE,
    "timeout_error": _TIMED_OUT,
    "authentication_error": _UNAUTHORIZED,
    "permission_error": _FORBIDDEN,
    "billing_error": _NO_CREDIT,
    "not_found_error": _NOT_FOUND,
    "request_too_large": _TOO_LARGE,
    "invalid_request_error": _INVALID,
}
"""Error types of the Messages API (platform.claude.com/docs/en/api/errors, and the SDK's ``ErrorType``)."""

_BY_STATUS: Final[Mapping[int, _Verdict]] = {
    401: _UNAUTHORIZED,
    402: _NO_CREDIT,
    403: _FORBIDDEN,
    404: _NOT_FOUND,
    408: _TIMED_OUT,
    409: _UNAVAILABLE,
    413: _TOO_LARGE,
    429: _RATE_LIMITED,
    501: _INVALID,
    504: _TIMED_OUT,
    529: _OVERLOADED,
}


def classify(error: ProviderError, now: datetime) -> ModelFailure:
    """Say what an error answer means for the dispatch. ``now`` is only used to read a ``retry-after`` date."""
    verdict = _BY_TYPE.get(error.type) or _BY_STATUS.get(error.status) or _by_class(error.status)
    if 300 <= error.status < 400:  # whoever redirects is not the API, whatever the body says
        verdict = _REDIRECTED
    if verdict is _INVALID and _is_overflow(error.message):
        verdict = _OVERFLOW
    return ModelFailure(
        verdict.kind,
        verdict.code,
        verdict.what,
        fix=verdict.fix,
        retry_after=None if verdict.kind in ("fatal", "context_overflow") else retry_after(error.headers, now),
        detail=_detail(error),
    )


def timed_out(detail: str) -> ModelFailure:
    """Return the failure for a provider that stayed silent too long."""
    return ModelFailure(_TIMED_OUT.kind, _TIMED_OUT.code, _TIMED_OUT.what, detail=detail[:_LONGEST_DETAIL])


def connection_lost(detail: str) -> ModelFailure:
    """Return the failure for a connection that could not be made, or broke before the answer was complete."""
    return ModelFailure(
        "transient", "model_connection", "The connection to the model provider failed.", detail=detail[:_LONGEST_DETAIL]
    )


def answer_cut(detail: str) -> ModelFailure:
    """Return the failure for an answer that ended without saying why, or that cannot be read."""
    return ModelFailure(
        "transient", "model_answer_cut", "The model's answer ended too early.", detail=detail[:_LONGEST_DETAIL]
    )


def misconfigured(detail: str) -> ModelFailure:
    """Return the failure for a request that could not even be sent as the settings stand."""
    return ModelFailure(
        "fatal",
        "model_misconfigured",
        "The model provider cannot be called as configured.",
        fix="Check ANTHROPIC_BASE_URL, ANTHROPIC_API_KEY and [models.anthropic] headers.",
        detail=detail[:_LONGEST_DETAIL],
    )


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Read how long the provider asks us to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date.

    Negative or unreadable values count as absent; long ones are cut to ``LONGEST_RETRY_AFTER``.
    """
    seconds = _number(headers.get("retry-after-ms", ""), 1000)
    if seconds is None:
        text = headers.get("retry-after", "")
        seconds = _number(text, 1)
        if seconds is None:
            seconds = _seconds_until(text, now)
    if seconds is None or seconds < 0:
        return None
    return timedelta(seconds=min(seconds, LONGEST_RETRY_AFTER.total_seconds()))


def _number(text: str, per_second: int) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value / per_second


def _seconds_until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return (aware - now).total_seconds()


def _by_class(status: int) -> _Verdict:
    """Judge a status we have no row for: what is not a 4xx may go away by itself."""
    return _INVALID if 400 <= status < 500 else _UNAVAILABLE


def _is_overflow(message: str) -> bool:
    lowered = message.lower()
    return any(words in lowered for words in _OVERFLOW_WORDS)


def _detail(error: ProviderError) -> str:
    request_id = error.headers.get("request-id", "")
    parts = [f"HTTP {error.status}", error.type, f"request {request_id}" if request_id else "", error.message]
    return " · ".join(part for part in parts if part)[:_LONGEST_DETAIL]
