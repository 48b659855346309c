"""What the code offers is in the reference, under the names the code uses."""

from __future__ import annotations

import runpy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args, get_origin

import msgspec
import pytest

from pyflue import cli, config, dispatches, errors, events

DOCS = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    return (DOCS / "reference" / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """Return what stands under a heading of the third level, up to the next heading."""
    _, _, after = f"\n{text}".partition(f"\n### {heading}\n")
    return after.partition("\n#")[0]


def row_of(text: str, column: int, name: str) -> str:
    """Return the table row that holds ``name`` as code in that column, or nothing."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return next((row for row in rows if row.strip("| ").split(" | ")[column] == f"`{name}`"), "")


def settings_of(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    """Yield ``(table, field)`` for every setting that is not itself a table."""
    for field in msgspec.structs.fields(struct):
        inner = get_args(field.type)[-1] if get_origin(field.type) is dict else field.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            named = f"{path}.{field.name}".lstrip(".") + (".NAME" if get_origin(field.type) is dict else "")
            yield from settings_of(inner, named)
        else:
            yield path, field


def error_classes(base: type[errors.PyFlueError] = errors.PyFlueError) -> Iterator[type[errors.PyFlueError]]:
    if base.__module__ == errors.__name__:
        yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def test_the_generated_parts_are_what_the_code_says_now() -> None:
    outputs: Callable[[], dict[Path, str]] = runpy.run_path(str(DOCS / "generate.py"))["outputs"]

    stale = [path.name for path, text in outputs().items() if path.read_text("utf-8") != text]

    assert not stale, f"run `make format`: {stale}"


@pytest.mark.parametrize(
    ("table", "field"), list(settings_of(config.Settings)), ids=lambda part: getattr(part, "name", part)
)
def test_a_setting_is_documented_with_its_default(table: str, field: msgspec.structs.FieldInfo) -> None:
    row = row_of(section(page("settings.md"), f"[{table}]"), 0, field.name)

    assert row, f"[{table}] {field.name} is not in settings.md"
    if field.default is not msgspec.NODEFAULT:
        assert msgspec.json.encode(field.default).decode() in row


@pytest.mark.parametrize("name", [*config.ENVIRONMENT, *config.CHANNEL_ENVIRONMENT, *config.SECRET_ENVIRONMENT])
def test_an_environment_variable_is_documented(name: str) -> None:
    assert f"`{name}`" in page("settings.md")


@pytest.mark.parametrize("name", list(config.SECRET_ENVIRONMENT))
def test_compose_passes_every_secret_on(name: str) -> None:
    assert f"\n{name}=" in (DOCS.parent / ".env.example").read_text("utf-8")


@pytest.mark.parametrize("event", get_args(events.Event), ids=lambda event: event.__struct_config__.tag)
def test_an_event_is_documented_with_every_field(event: type[msgspec.Struct]) -> None:
    text = section(page("events.md"), str(event.__struct_config__.tag))

    assert text, f"{event.__struct_config__.tag} is not in events.md"
    missing = [name for name in event.__struct_encode_fields__ if f"| `{name}` |" not in text]
    assert not missing


@pytest.mark.parametrize("error", list(error_classes()), ids=lambda error: error.__name__)
def test_an_error_is_documented_with_its_code(error: type[errors.PyFlueError]) -> None:
    row = row_of(page("errors.md"), 1, error.__name__)

    assert row.startswith(f"| `{error.code}` |")
    assert error.__doc__, "an error's docstring is what the reference says of it"


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_a_command_is_documented(name: str) -> None:
    assert f"`pyflue {name}`" in page("cli.md")


def test_an_error_code_belongs_to_one_class() -> None:
    codes = Counter(error.code for error in error_classes() if "code" in vars(error))

    assert [code for code, count in codes.items() if count > 1] == []
    assert all("code" in vars(error) for error in error_classes()), "every error has a code of its own"


@pytest.mark.parametrize(
    ("diagram", "table"),
    [
        ("states-dispatch.svg", dispatches.TRANSITIONS),
        ("states-outbox.svg", dispatches.OUTBOX_TRANSITIONS),
        ("states-worker.svg", dispatches.WORKER_TRANSITIONS),
    ],
)
def test_a_diagram_shows_every_state_and_every_transition(diagram: str, table: dict[str, frozenset[str]]) -> None:
    svg = page(diagram)

    expected = {f"<title>{state} → {after}</title>" for state, following in table.items() for after in following}
    assert {part for part in expected if part not in svg} == set()
    assert svg.count("<title>") == len(expected)
    assert all(f">{state}</text>" in svg for state in table)
    assert set(table) == set().union(*table.values()) | {next(iter(table))}, "every state can be reached"
