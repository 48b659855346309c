"""The ``pyflue`` command. One module per command; each is imported only when it is called, so that `--help` is quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import typer

from pyflue.errors import PyFlueError, StoreError, UnknownIdError

COMMANDS: Final[dict[str, str]] = {
    "demo": "The whole road on this machine, with no key and no service.",
    "dev": "Front, workers and store in one process, with reload on change.",
    "web": "The front: verifies webhooks and admits them durably.",
    "worker": "A worker: runs agents for what was admitted.",
    "migrate": "Bring the database schema to this release.",
    "doctor": "Check configuration, services, stuck work, and the ledger against the journal.",
    "run": "One prompt to one agent, from the terminal.",
    "logs": "Events of a dispatch, straight from shared storage.",
    "dispatches": "List, show, abort and replay dispatches.",
    "sessions": "List and show conversations.",
    "workers": "List worker processes.",
    "send": "Send a correctly signed test delivery to a channel.",
}
"""Every command with its one line; the module of each is ``pyflue.cli.NAME``.

A module defines ``command``: a function, or a ``typer.Typer`` with subcommands. Nothing else of it is public.
"""

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2  # what was asked for does not exist: an option, a command or an id
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells say it
EXIT_PIPE_CLOSED: Final = 141  # 128 + SIGPIPE: whoever read our output has gone


def build(chosen: str | None) -> typer.Typer:
    """Make the command line with only the chosen command's module imported; the others are known by their one line."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="PyFlue runs AI agents in production: nothing accepted is lost.",
    )
    app.callback()(_root)
    for name, line in COMMANDS.items():
        if name != chosen:
            app.command(name, help=line, short_help=line)(_not_loaded)
            continue
        module = importlib.import_module(f"pyflue.cli.{name}")
        if isinstance(module.command, typer.Typer):
            app.add_typer(module.command, name=name, help=line, short_help=line, no_args_is_help=True)
        else:
            app.command(name, short_help=line)(module.command)
    return app


def _root() -> None:
    pass


def _not_loaded() -> None:
    pass


def main() -> None:
    """Run the command line; our own errors are printed as one message, without a trace."""
    chosen = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a terminal that cannot show a character shows its number
    try:
        build(chosen)()
    except PyFlueError as error:
        from pyflue.cli.terminal import plain  # only now: `--help` does without

        detail = f" ({error.detail})" if isinstance(error, StoreError) and error.detail else ""  # for the operator
        print(f"pyflue: {plain(f'{error}{detail}', lines=True)}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, UnknownIdError) else EXIT_FAILURE)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as ended:
        sys.exit(EXIT_PIPE_CLOSED if _reader_went_away(ended) else ended.code)


def _reader_went_away(ended: SystemExit) -> bool:
    """Tell whether what was printed could not be written for want of a reader, of which typer makes a failure."""
    out = sys.stdout
    if out is None:  # whoever started us had closed it
        return False
    try:
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # what is still buffered goes nowhere
        return True
    return isinstance(ended.__context__, BrokenPipeError)
