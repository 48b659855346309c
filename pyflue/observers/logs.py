"""Structured logs: one line per event, on the standard library's logging.

A line has the time, the level, the event's name (dotted past tense), the ids bound at the doors and the event's
own fields: scalars only, never payloads, prompts or secrets. JSON for machines, text for a terminal.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final, Literal, TextIO, cast

import msgspec

from pyflue.config import LogSettings, Secret, blotted

Level = Literal["debug", "info", "warning", "error"]
Scalar = str | int | float | bool | None
"""What a log field may be. Nothing that could hold a payload, a prompt or a secret."""

_LOGGER: Final = logging.getLogger("pyflue")
_LOGGER.addHandler(logging.NullHandler())  # an application that configures no logging hears nothing of ours
_QUIET: Final = ("dramatiq", "uvicorn", "httpx", "httpcore", "httpx2", "anthropic", "litestar", "asyncio", "psycopg")
"""Libraries heard only from ``warning`` up: what they say in passing, our own lines say once and with ids."""
_NUMBERS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_PLAIN: Final = re.compile(r"[^\s\"=\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_EXTRA: Final = "pyflue_fields"

_bound: ContextVar[Mapping[str, Scalar] | None] = ContextVar("pyflue_log_ids", default=None)


def configure(settings: LogSettings, stream: TextIO, secrets: Sequence[Secret] = ()) -> None:
    """Send every log line of this process to ``stream``, replacing whatever handled logs before.

    ``format`` auto means text on a terminal and JSON otherwise. The values of ``secrets`` are blotted out of anything a
    library logs, exceptions included. Calling it again replaces the earlier settings.
    """
    text = settings.format == "text" or (settings.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(text=text, secrets=secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_NUMBERS[settings.level])
    for name in _known_loggers():
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, _NUMBERS[settings.level]) if name in _QUIET else logging.NOTSET)
    logging.captureWarnings(True)


@contextmanager
def bind(**ids: Scalar) -> Generator[None]:
    """Add these ids to every line logged within the block, also by tasks and threads started in it."""
    marker = _bound.set({**(_bound.get() or {}), **ids})
    try:
        yield
    finally:
        _bound.reset(marker)


def log(event: str, /, *, level: Level = "info", exc_info: BaseException | None = None, **fields: Scalar) -> None:
    """Log an event. ``exc_info`` adds the exception's trace, which is for operators only.

    A field that is not a scalar shows its type only, and a ``Secret`` nothing at all. Fields called ``time``, ``level``
    or ``event`` give way to the line's own.
    """
    number = _NUMBERS[level]
    if _LOGGER.isEnabledFor(number):
        trace = None if exc_info is None else (type(exc_info), exc_info, exc_info.__traceback__)
        record = logging.LogRecord(_LOGGER.name, number, "", 0, event, None, trace)  # whoever called does not matter
        vars(record)[_EXTRA] = {**(_bound.get() or {}), **fields}
        _LOGGER.handle(record)


class _Formatter(logging.Formatter):
    """Turns a record into one line. Ours carry ``pyflue_fields``; a library's message becomes a field."""

    def __init__(self, *, text: bool, secrets: Sequence[Secret]) -> None:
        super().__init__()
        self._text = text
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        event, fields = self._read(record)
        at = datetime.fromtimestamp(record.created, UTC)
        if record.exc_info and record.exc_info[1] is not None:
            fields["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        shown = {name: self._shown(value) for name, value in fields.items()}
        if self._text:
            return _text_line(at, record.levelname.lower(), event, shown)
        time = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Scalar] = {"time": time, "level": record.levelname.lower(), "event": event}
        return msgspec.json.encode({**line, **shown, **line}).decode()

    def _read(self, record: logging.LogRecord) -> tuple[str, dict[str, object]]:
        fields: object = vars(record).get(_EXTRA)
        if isinstance(fields, dict):
            return record.msg, dict(cast("dict[str, object]", fields))
        return "library.logged", {"logger": record.name, "message": _message_of(record), **(_bound.get() or {})}

    def _shown(self, value: object) -> Scalar:
        if value is None or isinstance(value, bool | int | float):
            return value
        if not isinstance(value, str):
            return "…" if isinstance(value, Secret) else f"<{type(value).__name__}>"
        return (
            blotted(value, self._secrets).encode("utf-8", "replace").decode()
        )  # a lone surrogate would make the line undecodable


def _text_line(at: datetime, level: str, event: str, fields: Mapping[str, Scalar]) -> str:
    trace = fields.get("trace")
    parts = [f"{name}={_quoted(value)}" for name, value in fields.items() if name != "trace"]
    line = " ".join([f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}", f"{level:7}", event, *parts])
    return f"{line}\n{str(trace).rstrip()}" if trace else line


def _quoted(value: Scalar) -> str:
    """Quote what could be taken for another field or another line."""
    text = "" if value is None else str(value)
    return text if _PLAIN.fullmatch(text) else msgspec.json.encode(text).decode()


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return str(record.msg)  # a library's arguments do not fit its own message


def _known_loggers() -> list[str]:
    """Return the quiet libraries and every logger below them that exists, whose handlers would print twice."""
    below = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _QUIET]
    return sorted({*_QUIET, *below})
