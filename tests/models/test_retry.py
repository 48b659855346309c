"""What a failed model call means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pyflue.models.retry import LONGEST_RETRY_AFTER, ProviderError, classify, retry_after

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "error_type", "kind"),
    [
        (429, "rate_limit_error", "rate_limited"),
        (429, "", "rate_limited"),
        (529, "overloaded_error", "overloaded"),
        (529, "", "overloaded"),
        (500, "api_error", "transient"),
        (502, "", "transient"),
        (503, "", "transient"),
        (504, "timeout_error", "transient"),
        (520, "", "transient"),
        (408, "", "transient"),
        (409, "", "transient"),
        (400, "invalid_request_error", "fatal"),
        (401, "authentication_error", "fatal"),
        (402, "billing_error", "fatal"),
        (403, "permission_error", "fatal"),
        (404, "not_found_error", "fatal"),
        (413, "request_too_large", "fatal"),
        (422, "", "fatal"),
        (418, "", "fatal"),
    ],
)
def test_an_error_answer_is_judged_by_its_type_and_else_by_its_status(status: int, error_type: str, kind: str) -> None:
    assert classify(ProviderError(status, error_type), NOW).kind == kind


@pytest.mark.parametrize(
    ("error_type", "kind"),
    [("overloaded_error", "overloaded"), ("rate_limit_error", "rate_limited"), ("api_error", "transient")],
)
def test_the_error_type_counts_more_than_a_status_of_200(error_type: str, kind: str) -> None:
    assert classify(ProviderError(200, error_type), NOW).kind == kind


def test_an_error_without_a_type_inside_a_stream_may_go_away() -> None:
    assert classify(ProviderError(200), NOW).kind == "transient"


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 215000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000",
        "The request exceeds the model's context window.",
    ],
)
def test_a_prompt_that_is_too_long_is_told_apart_from_an_invalid_request(message: str) -> None:
    assert classify(ProviderError(400, "invalid_request_error", message), NOW).kind == "context_overflow"
    assert classify(ProviderError(400, "", message), NOW).kind == "context_overflow"


def test_a_fatal_failure_says_what_to_do() -> None:
    failure = classify(ProviderError(401, "authentication_error", "invalid x-api-key"), NOW)

    assert "ANTHROPIC_API_KEY" in str(failure)
    assert failure.reason_code == "model_unauthorized"


def test_what_the_provider_wrote_is_for_the_operator_only_and_cut_short() -> None:
    failure = classify(ProviderError(400, "invalid_request_error", "messages.3: secret " * 100), NOW)

    assert "secret" not in str(failure)
    assert "messages.3" in failure.detail
    assert len(failure.detail) <= 500


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, timedelta(seconds=7)),
        ({"retry-after": "0"}, timedelta(0)),
        ({"retry-after": "1.5"}, timedelta(seconds=1.5)),
        ({"retry-after-ms": "250", "retry-after": "7"}, timedelta(milliseconds=250)),
        ({"retry-after-ms": "soon", "retry-after": "7"}, timedelta(seconds=7)),
        ({"retry-after": "Wed, 04 Mar 2026 12:00:30 GMT"}, timedelta(seconds=30)),
        ({"retry-after": "4294967"}, LONGEST_RETRY_AFTER),
        ({"retry-after": "inf"}, LONGEST_RETRY_AFTER),
        ({"retry-after": "Wed, 04 Mar 2099 12:00:30 GMT"}, LONGEST_RETRY_AFTER),
        ({"retry-after": "Wed, 04 Mar 2026 11:59:30 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_a_retry_after_is_read_capped_or_ignored(headers: dict[str, str], expected: timedelta | None) -> None:
    assert retry_after(headers, NOW) == expected


def test_a_pause_that_is_asked_for_comes_with_the_failure() -> None:
    limited = classify(ProviderError(429, "rate_limit_error", "", {"retry-after": "12"}), NOW)
    fatal = classify(ProviderError(401, "authentication_error", "", {"retry-after": "12"}), NOW)

    assert limited.retry_after == timedelta(seconds=12)
    assert fatal.retry_after is None
