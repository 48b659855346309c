"""From a model's name, such as ``anthropic/claude-sonnet-4-5``, to the provider that answers it.

Nothing is chosen silently: no model, no key or an unknown provider is an error that says what to set. The
offline provider answers only when it is asked for by name.
"""

from __future__ import annotations

from typing import Final

from pyflue.config import ModelsSettings, Secrets
from pyflue.errors import ConfigurationError
from pyflue.models.anthropic import AnthropicModel
from pyflue.models.offline import OFFLINE_MODELS, OfflineModel
from pyflue.models.protocol import Model

BUILT_IN: Final = ("anthropic", "offline")


def choose_model(agent: str, agent_model: str | None, default: str) -> str:
    """Return the model an agent uses: its own, or else ``[agents] model``.

    Raises:
        ConfigurationError: neither is set.
    """
    if name := agent_model or default:
        return name
    raise ConfigurationError(
        f"Agent {agent!r} has no model.",
        cause="Its definition sets none, and neither does [agents] model in pyflue.toml.",
        fix='Set model="anthropic/…" in create_agent(), or `model` under [agents]; "offline/echo" needs no key.',
    )


def split_model(name: str) -> tuple[str, str]:
    """Split ``provider/model`` (or ``provider:model``) into its two parts.

    Raises:
        ConfigurationError: there is no provider, or no model, in the name.
    """
    cut = min((name.find(mark) for mark in "/:" if mark in name), default=-1)
    if cut < 1 or cut == len(name) - 1:
        raise ConfigurationError(
            f"The model name {name!r} has no provider.",
            cause="A model is named provider/model.",
            fix=f"Write for example 'anthropic/{name.strip('/:') or 'claude-sonnet-4-5'}'.",
        )
    return name[:cut], name[cut + 1 :]


class ModelProviders:
    """The providers of a process. Each is made when it is first asked for and shared by all turns after that."""

    def __init__(self, settings: ModelsSettings, secrets: Secrets) -> None:
        self._settings = settings
        self._secrets = secrets
        self._providers: dict[str, Model] = {}

    def register(self, provider: str, model: Model) -> None:
        """Let ``model`` answer every ``provider/…``, also in place of a built-in one; ``close`` closes it too."""
        self._providers[provider] = model

    def resolve(self, name: str) -> tuple[Model, str]:
        """Return who answers ``name``, and the model id to ask for.

        Raises:
            ConfigurationError: the provider is unknown, or its key is not set.
        """
        provider, model_id = split_model(name)
        known = self._providers.get(provider)
        if known is None:
            known = self._providers[provider] = self._make(provider)
        if isinstance(known, OfflineModel) and model_id not in OFFLINE_MODELS:
            raise ConfigurationError(
                f"There is no offline model {model_id!r}.",
                cause=f"The offline provider has: {', '.join(OFFLINE_MODELS)}.",
                fix="Use one of these names.",
            )
        return known, model_id

    async def prepare(self) -> None:
        """Load the provider whose key is set, so that the first turn does not pay for the import of its SDK (1.8 s).

        Raises:
            ConfigurationError: the key cannot be one.
        """
        if self._secrets.anthropic_api_key and "anthropic" not in self._providers:
            made = self._providers["anthropic"] = self._anthropic()
            await made.prepare()

    async def close(self) -> None:
        """Close every provider that was used; idempotent."""
        providers, self._providers = self._providers, {}
        for model in providers.values():
            await model.close()

    def _make(self, provider: str) -> Model:
        if provider == "offline":
            return OfflineModel()
        if provider == "anthropic":
            return self._anthropic()
        listed = ", ".join(sorted({*BUILT_IN, *self._providers}))
        raise ConfigurationError(
            f"There is no model provider named {provider!r}.",
            cause=f"Providers known here: {listed}.",
            fix="Correct the part of the model name before the slash.",
        )

    def _anthropic(self) -> AnthropicModel:
        key = self._secrets.anthropic_api_key.reveal()
        if not key:
            raise ConfigurationError(
                "The anthropic models cannot be used.",
                cause="ANTHROPIC_API_KEY is not set.",
                fix='Set ANTHROPIC_API_KEY in the environment, or name an offline model such as "offline/echo".',
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigurationError(
                "The anthropic models cannot be used.",
                cause="ANTHROPIC_API_KEY holds a character that no key has, such as a line break.",
                fix="Set ANTHROPIC_API_KEY to the key alone.",
            )
        settings = self._settings.anthropic
        return AnthropicModel(
            self._secrets.anthropic_api_key,
            base_url=settings.base_url,
            headers=settings.headers,
            timeout=settings.timeout,
        )
