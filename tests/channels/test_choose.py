"""Which channels are built, and what is said about the others."""

from __future__ import annotations

import pytest

from pyflue.channels.choose import build_channels, unbuilt_channels
from pyflue.config import ChannelSettings, Secret, Secrets
from pyflue.errors import ConfigurationError
from tests.channels.building import SECRETS, settings

ALL = {name: settings(name) for name in ("github", "slack", "standard")}


def test_every_configured_channel_with_its_secrets_is_built() -> None:
    built = build_channels(ALL, SECRETS, timeout=1.0)

    assert {name: channel.receipt_shape for name, channel in built.items()} == {
        "github": "receipt",
        "slack": "ok",
        "standard": "receipt",
    }
    assert unbuilt_channels(ALL, SECRETS) == {}


def test_a_channel_without_its_secret_is_not_built_and_the_reason_is_told() -> None:
    some = Secrets(github_webhook_secret=Secret("s"), slack_signing_secret=Secret(" \n"))

    assert build_channels(ALL, some, timeout=1.0) == {}
    assert unbuilt_channels(ALL, some) == {
        "github": "GITHUB_TOKEN is not set.",
        "slack": "SLACK_SIGNING_SECRET and SLACK_BOT_TOKEN are not set.",
        "standard": "STANDARD_WEBHOOK_SECRET is not set.",
    }


def test_a_channel_that_never_replies_needs_no_token() -> None:
    channels = {
        "github": ChannelSettings(agent="a", reply="none"),
        "standard": ChannelSettings(agent="a", reply="none"),
    }

    assert set(build_channels(channels, SECRETS, timeout=1.0)) == {"github", "standard"}
    assert unbuilt_channels({"github": channels["github"]}, Secrets(github_webhook_secret=Secret("s"))) == {}


@pytest.mark.parametrize(
    ("channels", "named"),
    [
        ({"telegraph": ChannelSettings(agent="a")}, "telegraph"),
        ({"standard": ChannelSettings(agent="a")}, "reply_url"),
        ({"standard": ChannelSettings(agent="a", reply_url="ftp://example.com")}, "reply_url"),
        ({"standard": ChannelSettings(agent="a", reply_url="https://u:p@example.com/")}, "reply_url"),
        ({"slack": ChannelSettings(agent="a", api_url="slack.com/api")}, "api_url"),
    ],
)
def test_settings_that_cannot_work_are_refused(channels: dict[str, ChannelSettings], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        build_channels(channels, SECRETS, timeout=1.0)


@pytest.mark.parametrize("secret", ["whsec_!", "whsec_not-base64!", "whsec_ü", "whpk_dG9vIHNob3J0"])
def test_a_standard_secret_that_is_not_base64_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        build_channels({"standard": settings("standard")}, Secrets(standard_webhook_secret=Secret(secret)), timeout=1.0)

    assert secret not in str(raised.value)


def test_a_standard_channel_with_only_a_public_key_can_receive_and_not_reply() -> None:
    public = Secrets(standard_webhook_secret=Secret("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="))

    assert build_channels({"standard": settings("standard", reply="none")}, public, timeout=1.0)
    with pytest.raises(ConfigurationError, match="sign"):
        build_channels({"standard": settings("standard")}, public, timeout=1.0)
