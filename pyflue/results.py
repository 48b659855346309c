"""What a prompt returns to the code that asked, in the shapes PyFlue 0.2 used."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pyflue.dispatches import Dispatch


class PromptCost(Struct, frozen=True):
    """Money, in US dollars; zero where this release knows no price."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float = 0.0
    cache_write: float = 0.0
    total: float = 0.0


class PromptUsage(Struct, frozen=True):
    """Tokens of all model calls of one prompt."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    total_tokens: int = 0
    cost: PromptCost = PromptCost()


class PromptModel(Struct, frozen=True):
    """The model that gave the final answer, as the provider names it."""

    id: str | None = None


class HarnessResult(Struct, frozen=True):
    """The outcome of one prompt. ``metadata`` holds ``dispatch_id``, ``session_id`` and ``stop_reason``."""

    text: str
    metadata: Mapping[str, str]
    usage: PromptUsage = PromptUsage()
    model: PromptModel = PromptModel()


def result_of_dispatch(row: Dispatch) -> HarnessResult:
    """Turn a completed dispatch into what its prompt returns."""
    result = row.result
    if result is None:
        return HarnessResult("", {"dispatch_id": row.id, "session_id": row.session_id})
    used = result.usage
    return HarnessResult(
        text=result.text,
        metadata={"dispatch_id": row.id, "session_id": row.session_id, "stop_reason": result.stop_reason},
        usage=PromptUsage(
            used.input_tokens,
            used.output_tokens,
            used.cache_read_input_tokens,
            used.cache_creation_input_tokens,
            used.total_tokens,
        ),
        model=PromptModel(result.model or None),
    )
