"""Write the parts of the reference that follow from the code: settings, events, errors, commands and states.

A page is written by hand around blocks that begin with ``<!-- generated: NAME -->`` and end with
``<!-- end: NAME -->``; this script replaces what is between them, and draws the state diagrams.
``python docs/generate.py`` writes; with ``--check`` it only tells what is stale, and exits 1 if anything is.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import typer
from msgspec import Struct
from msgspec.structs import FieldInfo
from typer.models import ArgumentInfo, OptionInfo

from pyflue import cli, config, dispatches, errors, events
from pyflue.messages import Usage
from pyflue.testing.crash import POINTS
from pyflue.testing.history import RULES

REFERENCE: Final = Path(__file__).parent / "reference"


def main(arguments: list[str]) -> int:
    """Write, or check, every page and diagram; return the exit code."""
    stale = [path for path, text in outputs().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.name} is stale: run `make format`")
        return 1 if stale else 0
    for path in stale:
        path.write_text(outputs()[path], "utf-8")
        print(f"wrote {path.name}")
    return 0


def outputs() -> dict[Path, str]:
    """Return what every generated file should hold."""
    blocks: dict[str, Callable[[], str]] = {
        "settings": settings_block,
        "environment": environment_block,
        "events": events_block,
        "errors": errors_block,
        "commands": commands_block,
        "command lines": command_lines_block,
        "crash points": crash_points_block,
        "history rules": history_rules_block,
        "dispatch states": lambda: states_table(dispatches.TRANSITIONS),
        "outbox states": lambda: states_table(dispatches.OUTBOX_TRANSITIONS),
        "worker states": lambda: states_table(dispatches.WORKER_TRANSITIONS),
    }
    pages = {REFERENCE / name: (REFERENCE / name).read_text("utf-8") for name in PAGES}
    for page, text in pages.items():
        pages[page] = _BLOCK.sub(lambda found: _filled(found[1], blocks), text)
    diagrams = {
        REFERENCE / "states-dispatch.svg": diagram(dispatches.TRANSITIONS, DISPATCH_PLACES),
        REFERENCE / "states-outbox.svg": diagram(dispatches.OUTBOX_TRANSITIONS, OUTBOX_PLACES),
        REFERENCE / "states-worker.svg": diagram(dispatches.WORKER_TRANSITIONS, WORKER_PLACES),
    }
    return {**pages, **diagrams}


PAGES: Final = ("cli.md", "settings.md", "events.md", "errors.md", "states.md", "crash-matrix.md")
_BLOCK: Final = re.compile(r"<!-- generated: ([a-z ]+) -->\n.*?<!-- end: \1 -->", re.DOTALL)


def _filled(name: str, blocks: dict[str, Callable[[], str]]) -> str:
    return f"<!-- generated: {name} -->\n\n{blocks[name]().strip()}\n\n<!-- end: {name} -->"


# the crash matrix


def crash_points_block() -> str:
    """Render every place where the tests kill a process, in the order of the road."""
    rows = [f"| {point.step} | `{point.name}` | {point.died} |" for point in POINTS]
    return "\n".join(["| step | point | when the process died |", "|---|---|---|", *rows])


def history_rules_block() -> str:
    """Render what the history checker asks of every run."""
    rows = [f"| `{name}` | {' '.join((inspect.getdoc(rule) or '').split())} |" for name, rule in RULES.items()]
    return "\n".join(["| rule | what it asks |", "|---|---|", *rows])


# settings


def tables(struct: type[Struct] = config.Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, type[Struct]]]:
    """Yield ``(name of the TOML table, its Struct)`` for every table of ``pyflue.toml``."""
    for field in msgspec.structs.fields(struct):
        here = (*path, field.encode_name)
        if (inner := _struct_of(field.type)) is not None:
            name = ".".join(here) + (".NAME" if get_origin(field.type) is dict else "")
            if any(_struct_of(each.type) is None for each in msgspec.structs.fields(inner)):
                yield name, inner
            yield from tables(inner, here)


def settings_block() -> str:
    """Render one section for each table, with a row for each key."""
    variables = _variables()
    parts: list[str] = []
    for name, struct in tables():
        rows = [
            f"| `{field.encode_name}` | {type_label(field.type)} | {_default(field)} "
            f"| {variables.get(f'{name}.{field.encode_name}', '')} |"
            for field in msgspec.structs.fields(struct)
            if _struct_of(field.type) is None
        ]
        head = f"### [{name}]\n\n{_prose(struct)}\n\n| key | type | default | environment |\n|---|---|---|---|"
        parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts)


def environment_block() -> str:
    """Render every environment variable: those that set a setting, then the secrets."""
    rows = [f"| `{name}` | `{'.'.join(keys)}` |" for name, keys in config.ENVIRONMENT.items()]
    rows += [f"| `{name}` | `channels.{'.'.join(keys)}` |" for name, keys in config.CHANNEL_ENVIRONMENT.items()]
    secrets = [f"| `{name}` | secret, from the environment only |" for name in config.SECRET_ENVIRONMENT]
    return "\n".join(["| variable | sets |", "|---|---|", *rows, *secrets])


def _variables() -> dict[str, str]:
    found = {".".join(keys): f"`{name}`" for name, keys in config.ENVIRONMENT.items()}
    for name, (channel, key) in config.CHANNEL_ENVIRONMENT.items():
        setting = f"channels.NAME.{key}"
        found[setting] = ", ".join(part for part in (found.get(setting, ""), f"`{name}` ({channel})") if part)
    return found


def _struct_of(annotation: object) -> type[Struct] | None:
    candidates = (annotation, *get_args(annotation)[1:]) if get_origin(annotation) is dict else (annotation,)
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, Struct)), None)


# events


def events_block() -> str:
    """Render one section for each event type, with a row for each field."""
    parts: list[str] = []
    for struct in get_args(events.Event):
        hints = get_type_hints(struct, include_extras=True)
        rows = [
            f"| `{field.encode_name}` | {type_label(hints[field.name])} | {_default(field, required='always present')} |"
            for field in msgspec.structs.fields(struct)
        ]
        head = f"### {struct.__struct_config__.tag}\n\n{_prose(struct)}".rstrip()
        table = "\n".join(["| field | type | left out when |", "|---|---|---|", *rows]) if rows else "No fields."
        parts.append(f"{head}\n\n{table}")
    usage = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(Usage))
    return "\n\n".join([*parts, f"A *usage* object holds {usage}, each left out when 0."])


# errors


def error_classes(base: type[BaseException] = errors.PyFlueError) -> Iterator[type[BaseException]]:
    """Yield ``base`` and everything below it that ``pyflue.errors`` defines, parents first."""
    if base.__module__ == errors.__name__:
        yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def errors_block() -> str:
    """Render every error class with its code, and what it is a kind of."""
    rows = [
        f"| `{vars(each)['code']}` | `{each.__name__}` | `{each.__bases__[0].__name__}` | {_prose(each)} |"
        for each in error_classes()
        if "code" in vars(each)
    ]
    return "\n".join(["| code | class | a kind of | says |", "|---|---|---|---|", *rows])


# commands


def commands_block() -> str:
    """Render every command with its one line."""
    rows = [f"| `pyflue {name}` | {line} |" for name, line in cli.COMMANDS.items()]
    return "\n".join(["| command | does |", "|---|---|", *rows])


def command_lines() -> Iterator[tuple[str, Callable[..., None]]]:
    """Yield every command as typed, subcommands one by one, with the function that carries it out."""
    for name in cli.COMMANDS:
        command = import_module(f"pyflue.cli.{name}").command
        if not isinstance(command, typer.Typer):
            yield f"pyflue {name}", command
            continue
        for each in command.registered_commands:
            if each.callback is not None:
                yield f"pyflue {name} {each.name or each.callback.__name__}", each.callback


def command_lines_block() -> str:
    """Render a section for each command: what it says of itself, its arguments and options."""
    parts: list[str] = []
    for line, function in command_lines():
        rows = [_parameter_row(each, hint) for each, hint in _parameters(function)]
        said = inspect.cleandoc(function.__doc__ or "").replace("``", "`")
        table = ["| argument or option | default | |", "|---|---|---|", *rows] if rows else ["It takes no options."]
        parts.append("\n".join([f"### {line}", "", said, "", *table]))
    return "\n\n".join(parts)


def _parameters(function: Callable[..., None]) -> Iterator[tuple[inspect.Parameter, Any]]:
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        yield parameter, hints[parameter.name]


def _parameter_row(parameter: inspect.Parameter, hint: object) -> str:
    annotation, info = get_args(hint)
    names = _parameter_names(parameter.name, annotation, info)
    default = "required" if parameter.default is inspect.Parameter.empty else ""
    if parameter.default is True:
        default = f"`{names[0]}`"
    elif not default and info.show_default and parameter.default not in ("", None, False):
        default = f"`{parameter.default}`"
    choices = [each for each in (annotation, *get_args(annotation)) if get_origin(each) is Literal]
    told = f" One of {type_label(choices[0]).replace(' or ', ', ')}." if choices else ""
    shown = ", ".join(f"`{name}`" for name in names)
    return f"| {shown} | {default} | {info.help or ''}{told} |"


def _parameter_names(name: str, annotation: object, info: ArgumentInfo | OptionInfo) -> list[str]:
    """Return how a parameter is typed; inside ``Annotated``, Typer keeps the first spelling in ``default``."""
    if isinstance(info, ArgumentInfo):
        return [name.upper()]
    given = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
    words = name.replace("_", "-")
    return given or ([f"--{words}", f"--no-{words}"] if annotation is bool else [f"--{words}"])


# states

Places = dict[str, tuple[int, int]]
DISPATCH_PLACES: Final[Places] = {
    "queued": (90, 190),
    "running": (340, 70),
    "waiting": (340, 320),
    "completed": (610, 100),
    "failed": (610, 195),
    "aborted": (610, 290),
}
OUTBOX_PLACES: Final[Places] = {
    "pending": (90, 120),
    "sending": (340, 120),
    "sent": (610, 60),
    "undeliverable": (610, 180),
}
WORKER_PLACES: Final[Places] = {"live": (90, 60), "draining": (340, 120), "dead": (610, 60)}
_HALF_WIDTH: Final = 62
_HALF_HEIGHT: Final = 20
_BEND: Final = 18  # how far an edge leaves the straight line, so that the two directions of a pair stay apart


def states_table(transitions: dict[Any, frozenset[Any]]) -> str:
    """Render a table of transitions; a state without any is final."""
    rows = [
        f"| `{state}` | {', '.join(f'`{each}`' for each in _in_order(transitions, after)) or 'final'} |"
        for state, after in transitions.items()
    ]
    return "\n".join(["| state | may become |", "|---|---|", *rows])


def diagram(transitions: dict[Any, frozenset[Any]], places: Places) -> str:
    """Draw a table of transitions as SVG: a box for each state, an arrow for each transition."""
    height = max(y for _, y in places.values()) + 60
    arrows = [_arrow(a, b, places) for a, after in transitions.items() for b in _in_order(transitions, after)]
    boxes = [_box(state, places[state], final=not after) for state, after in transitions.items()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {height}" font-family="sans-serif">',
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#555"/></marker></defs>',
            f'<rect width="700" height="{height}" fill="#fff"/>',
            *arrows,
            *boxes,
            "</svg>\n",
        ]
    )


def _box(state: str, at: tuple[int, int], *, final: bool) -> str:
    x, y = at
    return (
        f'<rect x="{x - _HALF_WIDTH}" y="{y - _HALF_HEIGHT}" width="{2 * _HALF_WIDTH}" height="{2 * _HALF_HEIGHT}" '
        f'rx="8" fill="{"#eceff1" if final else "#e3f2fd"}" stroke="#37474f" stroke-width="{2 if final else 1}"/>'
        f'<text x="{x}" y="{y + 5}" font-size="15" text-anchor="middle" fill="#111">{state}</text>'
    )


def _arrow(source: str, target: str, places: Places) -> str:
    (ax, ay), (bx, by) = places[source], places[target]
    if source == target:
        top = ay - _HALF_HEIGHT
        path = f"M{ax - 25} {top} C{ax - 35} {top - 45} {ax + 35} {top - 45} {ax + 25} {top}"
    else:
        length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
        bend_x = (ax + bx) / 2 + _BEND * (by - ay) / length
        bend_y = (ay + by) / 2 - _BEND * (bx - ax) / length
        (sx, sy), (tx, ty) = _edge_of((ax, ay), (bend_x, bend_y)), _edge_of((bx, by), (bend_x, bend_y))
        path = f"M{sx:.0f} {sy:.0f} Q{bend_x:.0f} {bend_y:.0f} {tx:.0f} {ty:.0f}"
    title = f"<title>{source} → {target}</title>"
    return f'<path d="{path}" fill="none" stroke="#555" stroke-width="1.5" marker-end="url(#tip)">{title}</path>'


def _edge_of(centre: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Return where the line from a box's centre leaves the box."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    scale = min(_HALF_WIDTH / abs(dx) if dx else 1e9, _HALF_HEIGHT / abs(dy) if dy else 1e9)
    return centre[0] + dx * scale, centre[1] + dy * scale


def _in_order(transitions: dict[Any, frozenset[Any]], states: frozenset[Any]) -> list[str]:
    return [state for state in transitions if state in states]


# words


def type_label(annotation: object) -> str:
    """Say a type in a reader's words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation == config.Seconds:
        return "seconds, above 0"
    if origin is Annotated:
        bounds = [f"at least {each.ge}" for each in inner[1:] if isinstance(each, msgspec.Meta) and each.ge is not None]
        return ", ".join([type_label(inner[0]), *bounds])
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(type_label(each) for each in inner)
    if origin is tuple:
        return f"list of {type_label(inner[0])}s"
    if origin is dict:
        return f"table of {type_label(inner[1])}s"
    names: dict[object, str] = {str: "string", int: "integer", float: "number", bool: "true or false", Usage: "usage"}
    return names[annotation]


def _default(field: FieldInfo, required: str = "required") -> str:
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is msgspec.NODEFAULT:
        return required
    if isinstance(value, Struct):
        return "all 0"
    return f"`{msgspec.json.encode(value).decode()}`"


def _prose(documented: type) -> str:
    """Return a class's own docstring as one Markdown paragraph."""
    text = inspect.cleandoc(vars(documented).get("__doc__") or "")
    text = re.sub(r"\s+", " ", text.replace("``", "`")).replace("|", "\\|")
    text = re.sub(r"^`\[[\w.]+\]`[.:]? *", "", text)  # a settings class names its table, which is the heading already
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
