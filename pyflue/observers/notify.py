"""Tell observers what happened, keeping their failures to themselves."""

from __future__ import annotations

from collections.abc import Sequence

from pyflue.observers.logs import log, write
from pyflue.observers.protocol import Observation, Observer


def notify(observers: Sequence[Observer], observation: Observation) -> None:
    """Show an observation to each observer in turn; one that raises is logged and keeps nobody from seeing it."""
    for observer in observers:
        try:
            observer.observe(observation)
        except Exception as error:  # noqa: BLE001 - an observer must not break what it watches
            log("observer.failed", level="error", exc_info=error, observer=type(observer).__name__)


class LogObserver:
    """Writes one line for each observation, with its ids, fields and duration in milliseconds."""

    def observe(self, observation: Observation) -> None:
        fields = {**observation.ids, **observation.fields}
        if observation.took is not None:
            fields["duration_ms"] = round(observation.took.total_seconds() * 1000, 1)
        write(observation.event, fields, level="error" if observation.failed else "info")
