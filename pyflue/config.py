"""Settings: ``pyflue.toml`` plus the environment, read once, at the edge.

Unknown keys are errors. Secrets come only from the environment and never print. Whoever needs a setting is
handed it; nothing below ``runtime.py`` reads the environment or a file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import Meta, Struct

from pyflue.dispatches import QueueLimits, ReplyMode
from pyflue.errors import ConfigurationError

DEFAULT_DATABASE_URL: Final = "sqlite:///.pyflue/pyflue.sqlite3"
DEFAULT_FAILURE_REPLY: Final = "I could not finish this. An operator can look it up as {dispatch_id}."

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]  # up to a year; no clock or database overflows on it


class Secret:
    """A value that never shows itself: not in ``repr``, logs, errors or JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value, for the one place that sends or compares it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._value)


SHORTEST_SECRET: Final = 6  # characters; blotting out anything shorter would garble texts and protect nothing


def blotted(text: str, secrets: Sequence[Secret]) -> str:
    """Return a text with the values of ``secrets`` taken out."""
    for secret in secrets:
        value = secret.reveal()
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "…")
    return text


class StorageSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage]``. ``url``: ``sqlite:///path``, ``postgresql://…`` or ``memory:``. ``pool``: connections a process."""

    url: str = DEFAULT_DATABASE_URL
    pool: Positive = 6


class BrokerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[broker]``. ``url`` empty: embedded. ``namespace`` prefixes every Redis key."""

    url: str = ""
    namespace: str = "pyflue"


class WorkerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[worker]``: how many turns run at once in a process, and the timings of leases, in seconds."""

    turns: Positive = 100
    heartbeat: Seconds = 1.0
    lease: Seconds = 15.0
    grace: Seconds = 3.0
    rescue: Seconds = 1.0
    drain: Seconds = 25.0
    fence_margin: Seconds = 3.0
    judge_pause: Seconds = 5.0
    agent_unavailable_after: Seconds = 600.0

    def __post_init__(self) -> None:
        if self.heartbeat >= self.lease - self.fence_margin:
            raise ValueError(
                f"heartbeat ({self.heartbeat:g}) must be shorter than lease ({self.lease:g}) "
                f"minus fence_margin ({self.fence_margin:g}), or a worker takes itself for dead"
            )


class QueueSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[queue]``: how much unsettled work may wait before admissions are refused."""

    per_session: Positive = 1_000
    per_deployment: Positive = 1_000_000

    @property
    def limits(self) -> QueueLimits:
        return QueueLimits(self.per_session, self.per_deployment)


class OutboxSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[outbox]``: how long a reply is tried, and the pauses between tries, in seconds.

    ``max_attempts`` does not bind a platform that says when to try again; by default it takes longer than a day.
    """

    give_up_after: Seconds = 86_400.0
    max_attempts: Positive = 500
    first_delay: Seconds = 1.0
    longest_delay: Seconds = 300.0
    timeout: Seconds = 30.0


class RetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[retry]``: pauses before a failed model call is asked again, in seconds; doubled each time, with jitter."""

    first_delay: Seconds = 1.0
    longest_delay: Seconds = 60.0
    rate_limit_delay: Seconds = 10.0


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[models.anthropic]``. ``headers`` are added to each request, for gateways; ``timeout`` in seconds."""

    base_url: str = ""
    headers: dict[str, str] = {}
    max_tokens: Positive = 8_192
    timeout: Seconds = 600.0


class ModelsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    anthropic: ModelSettings = ModelSettings()


class ChannelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[channels.NAME]``.

    ``agent``: who answers. ``reply``: ``auto`` posts the final text, ``tool`` gives the model a ``reply`` tool.
    ``api_url``: the platform's base address, for gateways and tests. ``bot``: our own account there, whose messages are
    dropped (GitHub: login; Slack: user id). ``reply_url``: where ``standard`` posts replies.
    ``failure_reply``: what is posted when the work fails; empty posts nothing. ``mention``: GitHub: when set,
    only what contains it is answered; Slack: ``*`` answers every message of the channels the bot is in, not only mentions.
    """

    agent: str
    reply: ReplyMode = "auto"
    api_url: str = ""
    bot: str = ""
    app_id: str = ""
    reply_url: str = ""
    mention: str = ""
    failure_reply: str = DEFAULT_FAILURE_REPLY
    max_body_bytes: Positive = 1_048_576


class WebSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[web]``: where the front listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``. ``format`` auto: text on a terminal, JSON otherwise."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"


class AgentsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[agents]``. ``directories`` are searched for ``*.py``, relative to the project; a later one wins a name."""

    directories: tuple[str, ...] = ("agents", "src/agents")
    model: str = ""


class Secrets(Struct, frozen=True):
    """Everything secret, from the environment only."""

    anthropic_api_key: Secret = Secret("")
    slack_signing_secret: Secret = Secret("")
    slack_bot_token: Secret = Secret("")
    github_webhook_secret: Secret = Secret("")
    github_token: Secret = Secret("")
    standard_webhook_secret: Secret = Secret("")

    @property
    def all(self) -> tuple[Secret, ...]:
        """Return every secret, for those who must keep them out of what is written."""
        return tuple(value for value in msgspec.structs.astuple(self) if isinstance(value, Secret))


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of a process. ``root`` is the project's folder; relative paths start there."""

    storage: StorageSettings = StorageSettings()
    broker: BrokerSettings = BrokerSettings()
    worker: WorkerSettings = WorkerSettings()
    queue: QueueSettings = QueueSettings()
    outbox: OutboxSettings = OutboxSettings()
    retry: RetrySettings = RetrySettings()
    models: ModelsSettings = ModelsSettings()
    channels: dict[str, ChannelSettings] = {}
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    agents: AgentsSettings = AgentsSettings()


class Project(Struct, frozen=True):
    """Settings with what surrounds them: the project's folder, the secrets, and the environment agents may read.

    ``env`` is the process's environment without PyFlue's own secrets.
    """

    root: Path
    settings: Settings
    secrets: Secrets
    env: Mapping[str, str]

    @property
    def database_url(self) -> str:
        """Return the storage URL, with a relative SQLite path made absolute under the project's folder."""
        url = self.settings.storage.url
        if url.startswith("sqlite:///") and not url.startswith("sqlite:////"):
            return "sqlite:///" + str((self.root / url.removeprefix("sqlite:///")).resolve())
        return url


ENVIRONMENT: Final[dict[str, tuple[str, ...]]] = {
    "PYFLUE_DATABASE_URL": ("storage", "url"),
    "PYFLUE_REDIS_URL": ("broker", "url"),
    "PYFLUE_REDIS_NAMESPACE": ("broker", "namespace"),
    "PYFLUE_LOG_LEVEL": ("log", "level"),
    "PYFLUE_LOG_FORMAT": ("log", "format"),
    "ANTHROPIC_BASE_URL": ("models", "anthropic", "base_url"),
}
"""Environment variables that set one setting; they win over the file."""

CHANNEL_ENVIRONMENT: Final[dict[str, tuple[str, str]]] = {
    "GITHUB_API_URL": ("github", "api_url"),
    "SLACK_API_URL": ("slack", "api_url"),
}
"""Like ``ENVIRONMENT``, for channels; they count only when the channel has its table."""

SECRET_ENVIRONMENT: Final[dict[str, str]] = {
    "ANTHROPIC_API_KEY": "anthropic_api_key",
    "SLACK_SIGNING_SECRET": "slack_signing_secret",
    "SLACK_BOT_TOKEN": "slack_bot_token",
    "GITHUB_WEBHOOK_SECRET": "github_webhook_secret",
    "GITHUB_TOKEN": "github_token",
    "STANDARD_WEBHOOK_SECRET": "standard_webhook_secret",
}

WITHHELD: Final[frozenset[str]] = frozenset(
    {*SECRET_ENVIRONMENT, "PYFLUE_DATABASE_URL", "PYFLUE_REDIS_URL", "PYFLUE_API_KEYS", "ANTHROPIC_BASE_URL"}
)
"""What agents are not handed with the environment: PyFlue's own secrets, and addresses that may hold passwords."""


def seconds(value: float) -> timedelta:
    """Turn a setting in seconds into a duration."""
    return timedelta(seconds=value)


def load_project(path: str | Path = "pyflue.toml", env: Mapping[str, str] | None = None) -> Project:
    """Read settings from ``path`` and the environment.

    A missing default ``pyflue.toml`` means defaults; a path given otherwise must exist.

    Raises:
        ConfigurationError: the file is missing, unreadable or not TOML, or a key is unknown or of the wrong type.
    """
    environment = dict(os.environ if env is None else env)
    file = Path(path)
    if file.exists():
        tree = _parse(file)
    elif str(path) == "pyflue.toml":
        tree = {}
    else:
        raise ConfigurationError(
            f"There is no settings file {str(path)!r}.", fix="Correct --config, or create the file."
        )
    _overlay(tree, environment)
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            "The settings cannot be used.",
            cause=f"{error}.",
            fix=f"Correct the key in {file}, or the variable that sets it; docs/reference/settings.md lists all of them.",
        ) from error
    secrets = Secrets(**{field: Secret(environment.get(name, "")) for name, field in SECRET_ENVIRONMENT.items()})
    shared = {name: value for name, value in environment.items() if name not in WITHHELD}
    return Project(file.resolve().parent, settings, secrets, shared)


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not valid TOML.", cause=f"{error}.", fix="Correct the file.") from error
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be read.", cause=f"{error.strerror}.", fix="Correct the file."
        ) from error


def _overlay(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Let set environment variables win over the file's values, in place."""
    for name, keys in ENVIRONMENT.items():
        if value := environment.get(name, ""):
            _put(tree, keys, value)
    channels = tree.get("channels", {})
    for name, (channel, key) in CHANNEL_ENVIRONMENT.items():
        if (value := environment.get(name, "")) and isinstance(channels, dict) and channel in channels:
            _put(tree, ("channels", channel, key), value)


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: str) -> None:
    for key in keys[:-1]:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            name = ".".join(keys[: keys.index(key) + 1])
            raise ConfigurationError(f"[{name}] must be a table.", fix="Write it as a TOML table.")
        tree = cast("dict[str, Any]", inner)
    tree[keys[-1]] = value
