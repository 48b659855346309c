"""``pyflue doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import typer
from msgspec import Struct

from pyflue.cli import EXIT_FAILURE
from pyflue.cli.checks.agents import check_channels, load_agents
from pyflue.cli.checks.backlog import check_backlog
from pyflue.cli.checks.consistency import check_consistency
from pyflue.cli.checks.finding import Finding, Level, counted, fail, ok, worst
from pyflue.cli.checks.services import check_broker, check_release, check_storage, missing_file
from pyflue.cli.opening import CONNECTIONS, ConfigOption, JsonOption, run
from pyflue.cli.reports import as_json
from pyflue.cli.terminal import Colour, Terminal, plain
from pyflue.clock import SystemClock
from pyflue.config import Project, load_project
from pyflue.errors import ConfigurationError, StoreUnavailableError
from pyflue.stores.choose import open_store

COLOURS: Final[dict[Level, Colour]] = {"ok": "green", "warn": "yellow", "fail": "red"}


class Diagnosis(Struct, frozen=True):
    """What ``--json`` prints: the worst level, and every finding."""

    status: Level
    findings: tuple[Finding, ...]


def command(json: JsonOption = False, config: ConfigOption = "pyflue.toml") -> None:
    """Check settings, agents, channels, services, workers, stuck work, and the ledger against the journal.

    Nothing is changed. Agent files are executed, as a worker would. Exit code: 1 if anything failed, else 0.
    """
    env: Mapping[str, str] = {}
    try:
        project = load_project(config)
    except ConfigurationError as error:
        findings = [fail("settings", f"{error.what} {error.cause}".strip(), error.fix)]
    else:
        env = project.env
        findings = [check_release(), _settings_read(config), *run(_diagnosed(project))]
    out = Terminal(env)
    if json:
        out.say_json(as_json(Diagnosis(worst(findings), tuple(findings))))
    else:
        _print(out, findings)
    if worst(findings) == "fail":
        raise typer.Exit(EXIT_FAILURE)


def _settings_read(config: str) -> Finding:
    return ok("settings", f"{config} read." if Path(config).is_file() else "No pyflue.toml here: all defaults.")


async def _diagnosed(project: Project) -> list[Finding]:
    """Run every check that can be run with these settings."""
    loaded = await load_agents(project)
    findings = [*loaded.findings, *check_channels(project, loaded.registry)]
    findings.append(await check_broker(project))
    if missing := missing_file(project):
        return [*findings, missing]
    try:
        store = open_store(project.database_url, pool=CONNECTIONS)
    except ConfigurationError as error:
        return [*findings, fail("storage", f"{error.what} {error.cause}".strip(), error.fix)]
    try:
        storage = await check_storage(project, store)
        findings.append(storage)
        if storage.level == "ok":
            findings += await check_backlog(project, store, SystemClock().now())
            findings += await check_consistency(store, loaded.own_journal)
    except StoreUnavailableError as error:
        findings.append(
            fail("storage", f"It went away meanwhile. {error.cause}", "Look at the database, and run this again.")
        )
    finally:
        await store.close()
    return findings


def _print(out: Terminal, findings: list[Finding]) -> None:
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        level = out.paint(finding.level.ljust(4), COLOURS[finding.level])
        out.say(f"{level}  {plain(finding.check).ljust(width)}  {plain(finding.message)}")
        if finding.fix and finding.level != "ok":
            out.say(f"{' ' * (width + 8)}{out.paint('→ ' + plain(finding.fix), 'dim')}")
    levels = [finding.level for finding in findings]
    warnings, failures = levels.count("warn"), levels.count("fail")
    told = f"{counted(len(findings), 'check')}: {counted(warnings, 'warning')}, {counted(failures, 'failure')}."
    out.say()
    out.say(out.paint(told, COLOURS[worst(findings)]))
