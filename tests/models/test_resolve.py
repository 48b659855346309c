"""Who answers for a model's name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pyflue.config import ModelsSettings, Secret, Secrets
from pyflue.errors import ConfigurationError
from pyflue.models.anthropic import AnthropicModel
from pyflue.models.offline import OfflineModel
from pyflue.models.resolve import ModelProviders, choose_model
from pyflue.testing.models import ScriptedModel

KEY = "sk-ant-0123"


@pytest.fixture
async def providers() -> AsyncIterator[ModelProviders]:
    made = ModelProviders(ModelsSettings(), Secrets(anthropic_api_key=Secret(KEY)))
    yield made
    await made.close()


@pytest.mark.parametrize("name", ["anthropic/claude-sonnet-4-5", "anthropic:claude-sonnet-4-5"])
def test_an_anthropic_model_is_asked_for_without_its_prefix(providers: ModelProviders, name: str) -> None:
    model, model_id = providers.resolve(name)

    assert isinstance(model, AnthropicModel)
    assert model_id == "claude-sonnet-4-5"


def test_only_the_first_mark_separates_the_provider(providers: ModelProviders) -> None:
    assert providers.resolve("anthropic/vendor/claude:v1")[1] == "vendor/claude:v1"
    assert providers.resolve("anthropic:vendor/claude")[1] == "vendor/claude"


def test_a_provider_is_made_once(providers: ModelProviders) -> None:
    assert providers.resolve("anthropic/a")[0] is providers.resolve("anthropic/b")[0]


def test_without_a_key_anthropic_is_refused_and_offline_does_not_step_in() -> None:
    providers = ModelProviders(ModelsSettings(), Secrets())

    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY is not set"):
        providers.resolve("anthropic/claude-sonnet-4-5")
    assert isinstance(providers.resolve("offline/echo")[0], OfflineModel)


@pytest.mark.parametrize("key", ["sk-ant\n", "sk ant", "schlüssel"])
def test_a_key_with_characters_no_key_has_is_refused_without_showing_it(key: str) -> None:
    providers = ModelProviders(ModelsSettings(), Secrets(anthropic_api_key=Secret(key)))

    with pytest.raises(ConfigurationError) as error:
        providers.resolve("anthropic/claude-sonnet-4-5")
    assert key not in str(error.value)


@pytest.mark.parametrize("name", ["offline/gpt", "offline:none"])
def test_an_unknown_offline_model_is_refused(providers: ModelProviders, name: str) -> None:
    with pytest.raises(ConfigurationError, match="echo, demo"):
        providers.resolve(name)


@pytest.mark.parametrize("name", ["claude-sonnet-4-5", "/x", "anthropic/", ""])
def test_a_name_without_provider_or_model_is_refused(providers: ModelProviders, name: str) -> None:
    with pytest.raises(ConfigurationError, match="provider/model"):
        providers.resolve(name)


def test_an_unknown_provider_is_refused_with_the_known_ones_listed(providers: ModelProviders) -> None:
    with pytest.raises(ConfigurationError, match="anthropic, offline"):
        providers.resolve("openai/gpt")


async def test_a_registered_provider_answers_and_is_closed_with_the_others(providers: ModelProviders) -> None:
    scripted = ScriptedModel("hi")

    providers.register("scripted", scripted)
    model, model_id = providers.resolve("scripted/anything")
    await providers.close()
    await providers.close()

    assert (model, model_id) == (scripted, "anything")
    assert scripted.closed


def test_an_agents_own_model_wins_over_the_default() -> None:
    assert choose_model("helper", "anthropic/a", "anthropic/b") == "anthropic/a"
    assert choose_model("helper", None, "anthropic/b") == "anthropic/b"


@pytest.mark.parametrize("own", [None, ""])
def test_no_model_at_all_says_where_to_set_one(own: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"'helper' has no model.*\[agents\]"):
        choose_model("helper", own, "")
