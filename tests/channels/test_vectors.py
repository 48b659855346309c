"""Published and constructed signature cases of the three schemes, every one of them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from pyflue.channels.choose import build_channels
from pyflue.channels.protocol import Answer, Channel, RawRequest
from pyflue.config import Secret, Secrets
from pyflue.errors import MalformedRequestError, SignatureError
from tests.channels.building import settings


class Case(Struct):
    id: str
    provider: str
    expected: str
    headers: dict[str, str]
    secret: str | list[str] = ""
    public_key: str = ""
    body: str | None = None
    body_base64: str | None = None
    now: int | None = None
    expected_response: dict[str, int | dict[str, str]] | None = None

    def __str__(self) -> str:
        return self.id


class Cases(Struct):
    cases: list[Case]


CASES = msgspec.json.decode(Path(__file__).with_name("vectors.json").read_bytes(), type=Cases).cases


def channel_for(case: Case) -> Channel:
    keys = [case.secret] if isinstance(case.secret, str) else case.secret
    secret = Secret("\n".join(key for key in (*keys, case.public_key) if key))
    token = Secret("token")
    if case.provider == "github":
        name, secrets = "github", Secrets(github_webhook_secret=secret, github_token=token)
    elif case.provider == "slack":
        name, secrets = "slack", Secrets(slack_signing_secret=secret, slack_bot_token=token)
    else:
        name, secrets = "standard", Secrets(standard_webhook_secret=secret)
    return build_channels({name: settings(name, reply="none")}, secrets, timeout=1.0)[name]


def request_of(case: Case) -> RawRequest:
    headers = {"content-type": "application/json", **{name.lower(): value for name, value in case.headers.items()}}
    body = base64.b64decode(case.body_base64) if case.body_base64 else (case.body or "").encode()
    return RawRequest("POST", headers, body)


@pytest.mark.parametrize("case", [case for case in CASES if case.expected == "accept"], ids=str)
def test_a_genuine_request_passes_the_signature_check(case: Case) -> None:
    now = datetime.fromtimestamp(case.now or 1_700_000_000, UTC)

    try:
        result = channel_for(case).receive(request_of(case), now)
    except MalformedRequestError:
        result = None  # signed as it should be, but not a payload of ours: the check is behind us

    if case.expected_response:
        assert isinstance(result, Answer)
        assert result.status == case.expected_response["status"]
        assert msgspec.json.decode(result.body) == case.expected_response["json"]


@pytest.mark.parametrize("case", [case for case in CASES if case.expected == "reject"], ids=str)
def test_a_forged_or_stale_request_is_refused(case: Case) -> None:
    now = datetime.fromtimestamp(case.now or 1_700_000_000, UTC)

    with pytest.raises(SignatureError):
        channel_for(case).receive(request_of(case), now)


def test_all_cases_are_here() -> None:
    assert {case.provider for case in CASES} >= {"slack", "github", "standard-webhooks", "svix"}
    assert len(CASES) == 36
