"""``pyflue doctor``: says what is wrong and what to do, and nothing is wrong that it does not say."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pyflue.stores.choose import open_store
from tests.cli.operating import (
    STANDARD_SECRET,
    Desk,
    a_worker,
    address,
    admit,
    complete,
    make_desk,
    settle,
    to_standard,
)
from tests.services import free_port


async def findings(desk: Desk, env: Mapping[str, str] | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and what was found by the name of each check."""
    done = await desk.run("doctor", "--json", env=env)
    assert len(done.objects) == 1, done.err
    [diagnosis] = done.objects
    levels = {finding["level"] for finding in diagnosis["findings"]}
    assert diagnosis["status"] == next(level for level in ("fail", "warn", "ok") if level in levels)
    assert all(finding["fix"] for finding in diagnosis["findings"] if finding["level"] != "ok")
    return done.code, {finding["check"]: finding for finding in diagnosis["findings"]}


def tamper(desk: Desk, sql: str) -> None:
    with sqlite3.connect(desk.root / ".pyflue" / "pyflue.sqlite3") as database:
        assert database.execute(sql).rowcount > 0
    database.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A project where nothing is wrong but that nobody works."""
    desk = make_desk(tmp_path)
    (desk.root / "agents" / "moody.py").unlink()
    return desk


async def test_a_sound_project_is_found_sound(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime, ["one", "two"])
        await a_worker(runtime, "triage")

        code, found = await findings(desk)
        page = await desk.run("doctor")

    assert (code, page.code) == (0, 0)
    assert {finding["level"] for finding in found.values()} == {"ok"}
    assert page.lines[-1] == f"{len(found)} checks: 0 warnings, 0 failures."
    assert "newest 2 dispatches of 1 session looked at" in found["ledger and journal"]["message"]


async def test_settings_that_cannot_be_used_are_a_finding(desk: Desk) -> None:
    (desk.root / "pyflue.toml").write_text("[storag]\nurl = 1\n")

    code, found = await findings(desk)

    assert code == 1
    assert found["settings"]["level"] == "fail"
    assert "storag" in found["settings"]["message"]


async def test_addresses_that_cannot_be_used_are_findings_and_hide_no_other(desk: Desk) -> None:
    env = {"PYFLUE_DATABASE_URL": "mysql://u:hunter2@h/db", "PYFLUE_REDIS_URL": "http://:hunter2@h"}

    code, found = await findings(desk, env)

    assert code == 1
    assert (found["storage"]["level"], found["broker"]["level"]) == ("fail", "fail")
    assert "(mysql://)" in found["storage"]["message"]
    assert "not a URL of Redis" in found["broker"]["message"]
    assert found["agent triage"]["level"] == "ok"
    assert "hunter2" not in str(found)


async def test_a_database_that_is_not_there_yet_is_no_failure(desk: Desk) -> None:
    code, found = await findings(desk)

    assert code == 0
    assert found["storage"]["level"] == "warn"
    assert not (desk.root / ".pyflue").exists()


async def test_an_agent_that_does_not_load_is_a_failure_and_hides_no_other(desk: Desk) -> None:
    (desk.root / "agents" / "typo.py").write_text("import nothing_of_that_name\n")
    (desk.root / "agents" / "keyless.py").write_text(
        'from pyflue import create_agent\n\nprint("loading")\n'
        'default = create_agent(lambda: {"model": "anthropic/claude-haiku-4-5"})\n'
    )

    code, found = await findings(desk)
    _, with_key = await findings(desk, {"ANTHROPIC_API_KEY": "sk-ant-secret"})

    assert code == 1
    assert found["agent triage"]["level"] == "ok"
    assert "agents/typo.py, line 1" in found["agent typo"]["message"]
    assert (found["agent keyless"]["level"], with_key["agent keyless"]["level"]) == ("fail", "ok")
    assert "ANTHROPIC_API_KEY is not set." in found["agent keyless"]["message"]
    assert "sk-ant-secret" not in str(with_key)


async def test_an_agent_that_needs_its_payload_is_only_a_warning(tmp_path: Path) -> None:
    code, found = await findings(make_desk(tmp_path))

    assert code == 0
    assert found["agent moody"]["level"] == "warn"
    assert "no luck today" in found["agent moody"]["message"]


async def test_an_agent_whose_settings_no_payload_could_mend_fails(desk: Desk) -> None:
    (desk.root / "agents" / "typo.py").write_text(
        'from pyflue import create_agent\n\ndefault = create_agent(lambda: {"instruction": "Repeat."})\n'
    )

    code, found = await findings(desk)

    assert code == 1
    assert found["agent typo"]["level"] == "fail"
    assert "instruction" in found["agent typo"]["message"]


async def test_a_channel_says_which_variable_is_missing(desk: Desk) -> None:
    with (desk.root / "pyflue.toml").open("a") as settings:
        settings.write('\n[channels.slack]\nagent = "triage"\n\n[channels.github]\nagent = "nobody"\n')
    env = {
        "STANDARD_WEBHOOK_SECRET": "",
        "SLACK_SIGNING_SECRET": "s",
        "GITHUB_WEBHOOK_SECRET": "g",
        "GITHUB_TOKEN": "t",
    }

    code, found = await findings(desk, env)

    assert code == 1
    assert found["channel standard"]["message"] == "STANDARD_WEBHOOK_SECRET is not set."
    assert found["channel slack"]["message"] == "SLACK_BOT_TOKEN is not set."
    assert found["channel github"]["message"] == "There is no agent 'nobody'."


async def test_work_that_nobody_takes_is_a_failure(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await admit(runtime)
        _, without_worker = await findings(desk)
        await a_worker(runtime, "another")
        tamper(desk, "update sessions set due_at = due_at - 120000000")

        code, found = await findings(desk)

    assert without_worker["workers"]["level"] == "fail"
    assert without_worker["due work"]["level"] == "ok"
    assert code == 1
    assert found["due work"]["level"] == "fail"
    assert "the oldest for 2 min" in found["due work"]["message"]
    assert "'triage'; no live worker has it" in found["agents at work"]["message"]


async def test_sessions_of_a_dead_worker_are_told(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        await admit(runtime)
        worker = await a_worker(runtime, "triage")
        assert await runtime.store.ledger.claim(address().id, worker, frozenset({"triage"}))
        tamper(desk, "update workers set expires_at = 0")

        _, found = await findings(desk)

    assert found["dead workers"]["level"] == "warn"
    assert f"1 session held by dead workers ({worker})." in found["dead workers"]["message"]


async def test_late_and_lost_replies_are_told(desk: Desk) -> None:
    async with desk.runtime() as runtime:
        first, second = [
            await admit(runtime, text, address(text), reply=to_standard()) for text in ("late", "undeliverable")
        ]
        await settle(runtime, first)
        await settle(runtime, second)
        lost = (await runtime.store.views.outbox(dispatch_id=second))[0].id
    tamper(desk, "update outbox set status = 'pending', lease_owner = null, available_at = available_at - 900000000")
    tamper(desk, f"update outbox set status = 'undeliverable' where id = '{lost}'")

    code, found = await findings(desk)

    assert code == 1
    assert "1 reply is due for over 60 s" in found["late replies"]["message"]
    assert found["undeliverable replies"]["level"] == "warn"
    assert lost in found["undeliverable replies"]["message"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("update sessions set unsettled = 3", "counts 3 unsettled dispatches, but has 0"),
        ("update sessions set mailbox_head = 0", "counts 0 in its mailbox, but one has position 1"),
        ("update sessions set head = 7", "has head 7, but its journal ends at 2"),
        ("delete from entries where seq = 1", "or has gaps"),
        ("update entries set kind = 'hidden' where kind = 'answer'", "is completed, but its journal has no answer"),
    ],
)
async def test_a_ledger_that_contradicts_the_journal_is_a_failure(desk: Desk, damage: str, told: str) -> None:
    async with desk.runtime() as runtime:
        await complete(runtime)
    tamper(desk, damage)

    code, found = await findings(desk)

    assert code == 1
    assert found["ledger and journal"]["level"] == "fail"
    assert told in found["ledger and journal"]["message"]


async def test_an_agent_with_a_journal_of_its_own_contradicts_nothing(desk: Desk) -> None:
    (desk.root / "agents" / "keeper.py").write_text(
        "from pyflue import SQLiteSessionStore, create_agent\n\n"
        'default = create_agent(lambda: {"model": "offline/echo", "persist": SQLiteSessionStore("kept.sqlite3")})\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(desk.root)
        async with desk.runtime() as runtime:
            await complete(runtime, where=address(agent="keeper"))

    _, found = await findings(desk)

    assert found["agent keeper"]["level"] == "ok"
    assert found["ledger and journal"]["level"] == "ok"


async def test_on_postgres_it_pings_the_broker_and_checks_the_schema(
    tmp_path: Path, fresh_postgres_dsn: str, redis_url: str, redis_namespace: str
) -> None:
    env = {
        "PYFLUE_DATABASE_URL": fresh_postgres_dsn,
        "PYFLUE_REDIS_URL": redis_url,
        "PYFLUE_REDIS_NAMESPACE": redis_namespace,
    }
    desk = make_desk(tmp_path, env)
    unmigrated_code, unmigrated = await findings(desk)
    store = open_store(fresh_postgres_dsn, pool=1)
    await store.migrate()
    await store.close()
    async with desk.runtime() as runtime:
        await complete(runtime, ["one", "two"])

    code, found = await findings(desk)
    _, no_broker = await findings(desk, {"PYFLUE_REDIS_URL": f"redis://:hunter2@127.0.0.1:{free_port()}/0"})
    down_code, down = await findings(desk, {"PYFLUE_DATABASE_URL": f"postgresql://a:hunter2@127.0.0.1:{free_port()}/x"})

    assert (unmigrated_code, code, down_code) == (1, 0, 1)
    assert "pyflue migrate" in unmigrated["storage"]["fix"]
    assert found["storage"]["level"] == found["broker"]["level"] == found["ledger and journal"]["level"] == "ok"
    assert no_broker["broker"]["level"] == "warn"
    assert down["storage"]["level"] == "fail"
    assert "hunter2" not in str([no_broker, down])
    assert STANDARD_SECRET not in str([found, no_broker, down])
