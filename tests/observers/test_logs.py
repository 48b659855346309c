"""Log lines: one per event, with ids, and never with what should not be there."""

from __future__ import annotations

import asyncio
import io
import logging
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import pytest

from pyflue.config import LogSettings, Secret
from pyflue.errors import StoreUnavailableError
from pyflue.observers.logs import bind, configure, log

TOKEN = 'xoxb-"very\\secret"-1234'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure(LogSettings(level="debug"), stream, [Secret(TOKEN), Secret("")])
    return stream


def test_a_line_has_time_level_event_ids_and_fields_in_that_order(stream: io.StringIO) -> None:
    with bind(session_id="ses_1"), bind(dispatch_id="dsp_1"):
        log("dispatch.settled", outcome="completed", turns=2, cost=0.5, replayed=False, error=None)

    (line,) = lines(stream)
    assert list(line)[:5] == ["time", "level", "event", "session_id", "dispatch_id"]
    assert datetime.fromisoformat(line.pop("time")).utcoffset() == timedelta(0)
    assert line == {
        "level": "info",
        "event": "dispatch.settled",
        "session_id": "ses_1",
        "dispatch_id": "dsp_1",
        "outcome": "completed",
        "turns": 2,
        "cost": 0.5,
        "replayed": False,
        "error": None,
    }


def test_ids_are_bound_for_their_block_only_and_an_events_own_field_wins(stream: io.StringIO) -> None:
    with bind(worker_id="wrk_1"):
        log("a.done", worker_id="wrk_2")
    log("b.done")

    first, second = lines(stream)
    assert first["worker_id"] == "wrk_2"
    assert "worker_id" not in second


async def test_concurrent_tasks_do_not_mix_their_ids(stream: io.StringIO) -> None:
    turn = asyncio.Barrier(3)

    async def work(name: str) -> None:
        with bind(session_id=name):
            await turn.wait()
            log("turn.answered", mine=name)

    await asyncio.gather(*(work(name) for name in ("a", "b", "c")))

    assert sorted((line["session_id"], line["mine"]) for line in lines(stream)) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_levels_below_the_setting_are_not_written() -> None:
    stream = io.StringIO()
    configure(LogSettings(level="warning"), stream)

    log("a.done", level="info")
    log("b.done", level="warning")

    assert [line["event"] for line in lines(stream)] == ["b.done"]


def test_fields_cannot_pose_as_the_line_itself(stream: io.StringIO) -> None:
    fields: dict[str, Any] = {"event": "forged", "time": "never"}

    log("a.done", **fields)

    (line,) = lines(stream)
    assert line["event"] == "a.done"
    assert line["time"] != "never"


@pytest.mark.parametrize("format", ["json", "text"])
def test_secrets_never_print(format: Literal["json", "text"]) -> None:
    stream = io.StringIO()
    configure(LogSettings(level="debug", format=format), stream, [Secret(TOKEN)])
    secret: Any = Secret(TOKEN)

    log("a.done", token=secret, header=f"Bearer {TOKEN}", nested={"token": TOKEN})  # type: ignore[arg-type]
    logging.getLogger("somelibrary").warning("sent %r with %s", secret, TOKEN)
    try:
        raise ValueError(f"could not use {TOKEN}")
    except ValueError as error:
        log("b.failed", level="error", exc_info=error)
        logging.getLogger("dramatiq").exception("it failed")

    written = stream.getvalue()
    assert "very" not in written
    assert "ValueError: could not use …" in written
    assert written.count("b.failed") == 1


def test_what_is_not_a_scalar_shows_its_type_only(stream: io.StringIO) -> None:
    payload: Any = {"text": "what the customer wrote"}

    log("a.done", payload=payload, raw=b"bytes")  # type: ignore[arg-type]

    (line,) = lines(stream)
    assert (line["payload"], line["raw"]) == ("<dict>", "<bytes>")


def test_a_stores_detail_is_not_in_the_text_callers_see(stream: io.StringIO) -> None:
    error = StoreUnavailableError("postgresql://user:password@host refused")

    log("request.failed", error=str(error))

    assert "password" not in stream.getvalue()


def test_libraries_are_heard_from_warning_up_and_in_our_form(stream: io.StringIO) -> None:
    with bind(request_id="req_1"):
        logging.getLogger("uvicorn.access").info("GET /")
        logging.getLogger("dramatiq.worker").info("hello")
        logging.getLogger("uvicorn.error").warning("slow %d", 5)

    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["message"]) == ("library.logged", "uvicorn.error", "slow 5")
    assert line["request_id"] == "req_1"


def test_a_librarys_own_handlers_do_not_print_twice() -> None:
    own = io.StringIO()
    logging.getLogger("dramatiq.broker").addHandler(logging.StreamHandler(own))
    stream = io.StringIO()

    configure(LogSettings(), stream)
    configure(LogSettings(), stream)
    logging.getLogger("dramatiq.broker").warning("once")

    assert own.getvalue() == ""
    assert len(lines(stream)) == 1


def test_a_librarys_mistake_in_its_own_message_is_still_a_line() -> None:
    stream, mistaken = io.StringIO(), "%s and %s"
    configure(LogSettings(), stream)  # here, not in the fixture: pytest adds a stricter handler in between

    logging.getLogger("x").warning(mistaken, "one")

    assert lines(stream)[0]["message"] == "%s and %s"


def test_warnings_are_logged(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old way", stacklevel=1)

    assert "old way" in lines(stream)[0]["message"]


def test_text_is_for_terminals_and_json_for_everything_else() -> None:
    terminal, file = Terminal(), io.StringIO()

    configure(LogSettings(), terminal)
    log("a.done", n=1)
    configure(LogSettings(), file)
    log("a.done", n=1)

    assert terminal.getvalue().endswith(" info    a.done n=1\n")
    assert lines(file)[0]["n"] == 1


def test_a_value_cannot_forge_a_field_or_a_line_of_text() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="text"), stream)

    log("a.done", text="x\n12:00:00.000 error   b.failed fake=1", other="a b=c", sep="a\u2028b", esc="\x1b[2J")

    assert len(stream.getvalue().splitlines()) <= 2  # U+2028 inside quotes is the most that may remain
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert 'other="a b=c"' in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_value_is_too_odd_for_a_line(format: Literal["json", "text"]) -> None:
    stream = io.StringIO()
    configure(LogSettings(format=format), stream)

    log("a.done", surrogate="\ud800", nul="\0", nan=float("nan"), inf=float("inf"), huge=10**30)

    assert stream.getvalue().encode()
    assert stream.getvalue().count("\n") == 1
