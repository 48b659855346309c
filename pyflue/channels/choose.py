"""Which channels this process has: from settings and secrets to the channels themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from pyflue.channels.github import GithubChannel
from pyflue.channels.http import origin_of
from pyflue.channels.protocol import Channel
from pyflue.channels.slack import SlackChannel
from pyflue.channels.standard import StandardChannel
from pyflue.clock import Clock, SystemClock
from pyflue.config import ChannelSettings, Secrets, seconds
from pyflue.errors import ConfigurationError


class _Kind(Struct, frozen=True):
    """A channel we know. ``receiving`` and ``replying`` are the environment variables it cannot do without."""

    build: type[GithubChannel] | type[SlackChannel] | type[StandardChannel]
    receiving: str
    replying: str


_KINDS: Final = {
    "github": _Kind(GithubChannel, "GITHUB_WEBHOOK_SECRET", "GITHUB_TOKEN"),
    "slack": _Kind(SlackChannel, "SLACK_SIGNING_SECRET", "SLACK_BOT_TOKEN"),
    "standard": _Kind(StandardChannel, "STANDARD_WEBHOOK_SECRET", "STANDARD_WEBHOOK_SECRET"),
}


def build_channels(
    channels: Mapping[str, ChannelSettings], secrets: Secrets, *, timeout: float, clock: Clock | None = None
) -> dict[str, Channel]:
    """Build every configured channel whose secrets are set; ``unbuilt_channels`` says why one is missing.

    ``timeout``, in seconds, bounds each call to a platform. Nothing is opened before the first call.

    Raises:
        ConfigurationError: a channel we do not know, an address that is none, a secret that cannot be one, or a
            ``standard`` channel that should reply and does not say where.
    """
    for name, settings in channels.items():
        _check(name, settings)
    missing = unbuilt_channels(channels, secrets)
    return {
        name: _KINDS[name].build(settings, secrets, timeout=seconds(timeout), clock=clock or SystemClock())
        for name, settings in channels.items()
        if name not in missing
    }


def unbuilt_channels(channels: Mapping[str, ChannelSettings], secrets: Secrets) -> dict[str, str]:
    """Return why channels are not built: name to a sentence naming the variables that are not set."""
    reasons: dict[str, str] = {}
    for name, settings in channels.items():
        unset = [variable for variable in _needed(name, settings) if not _is_set(secrets, variable)]
        if unset:
            reasons[name] = f"{' and '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set."
    return reasons


def _needed(name: str, settings: ChannelSettings) -> list[str]:
    kind = _KINDS.get(name)
    if kind is None:
        return []
    needed = [kind.receiving] if settings.reply == "none" else [kind.receiving, kind.replying]
    return list(dict.fromkeys(needed))


def _is_set(secrets: Secrets, variable: str) -> bool:
    value = {
        "GITHUB_WEBHOOK_SECRET": secrets.github_webhook_secret,
        "GITHUB_TOKEN": secrets.github_token,
        "SLACK_SIGNING_SECRET": secrets.slack_signing_secret,
        "SLACK_BOT_TOKEN": secrets.slack_bot_token,
        "STANDARD_WEBHOOK_SECRET": secrets.standard_webhook_secret,
    }[variable]
    return bool(value.reveal().strip())


def _check(name: str, settings: ChannelSettings) -> None:
    if name not in _KINDS:
        raise ConfigurationError(
            f"There is no channel kind {name!r}.",
            cause=f"pyflue.toml has [channels.{name}]; known are {', '.join(_KINDS)}.",
            fix="Correct the name of the table, or remove it.",
        )
    if settings.api_url and origin_of(settings.api_url) is None:
        raise ConfigurationError(
            f"channels.{name}.api_url is not an http or https address.",
            cause="It may come from the file or from the environment.",
            fix="Write it in full, like https://example.com/api.",
        )
    if name == "standard" and settings.reply != "none" and not settings.reply_url:
        raise ConfigurationError(
            "channels.standard has no reply_url.",
            cause="Its replies are signed POSTs to that address.",
            fix='Set reply_url, or reply = "none" if nobody reads the replies.',
        )
