"""compose.yaml and the Dockerfile run what the process tests run. No container is started."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyflue import config
from tests import commands

ROOT = Path(__file__).parent.parent


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]


@pytest.fixture
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text("utf-8")


def test_the_deployment_is_a_front_workers_a_migration_and_two_servers(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {"postgres", "redis", "migrate", "web", "worker"}


@pytest.mark.parametrize(
    ("service", "command"),
    [("migrate", commands.MIGRATE), ("web", commands.web("0.0.0.0", 8000)), ("worker", commands.WORKER)],
)
def test_a_service_runs_the_command_the_process_tests_run(
    services: dict[str, dict[str, Any]], dockerfile: str, service: str, command: tuple[str, ...]
) -> None:
    entrypoint = re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)

    assert entrypoint is not None
    assert (*json.loads(entrypoint[1]), *services[service]["command"]) == command


@pytest.mark.parametrize("service", ["postgres", "redis", "web", "worker"])
def test_what_keeps_running_has_a_health_check(services: dict[str, dict[str, Any]], service: str) -> None:
    check = services[service]["healthcheck"]

    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= set(check)


def test_the_database_is_healthy_only_once_the_server_answers_that_stays(services: dict[str, dict[str, Any]]) -> None:
    """The image's entry point sets the database up with a server that listens on its socket alone, then stops it."""
    check = services["postgres"]["healthcheck"]["test"]

    assert check[:2] == ["CMD", "pg_isready"]
    assert check[check.index("--host") + 1] == "127.0.0.1"


def test_the_databases_password_reaches_agents_in_no_variable(services: dict[str, dict[str, Any]]) -> None:
    """``.env`` holds it for the database; what the processes get of it is the URL, which agents are not handed."""
    for service in ("migrate", "web", "worker"):
        given = services[service]["environment"]
        carrying = {name for name, value in given.items() if "${POSTGRES_PASSWORD" in value}

        assert given["POSTGRES_PASSWORD"] == ""
        assert carrying <= config.WITHHELD


def test_the_front_is_asked_whether_it_is_ready_on_the_port_it_listens_on(services: dict[str, dict[str, Any]]) -> None:
    assert "http://127.0.0.1:8000/health/ready" in services["web"]["healthcheck"]["test"][-1]


def test_a_worker_can_be_scaled(services: dict[str, dict[str, Any]]) -> None:
    assert {"container_name", "ports"}.isdisjoint(services["worker"])


def test_nothing_starts_before_the_schema_is_current(services: dict[str, dict[str, Any]]) -> None:
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for service in ("web", "worker"):
        assert services[service]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_redis_may_be_absent_when_the_processes_start(services: dict[str, dict[str, Any]]) -> None:
    for service in ("web", "worker"):
        assert services[service]["depends_on"]["redis"]["condition"] == "service_started"


def test_a_stopping_worker_has_longer_than_its_drain_time(services: dict[str, dict[str, Any]]) -> None:
    grace = float(services["worker"]["stop_grace_period"].removesuffix("s"))

    assert grace > config.WorkerSettings().drain


def test_the_processes_are_configured_by_variables_that_exist(services: dict[str, dict[str, Any]]) -> None:
    known = {*config.ENVIRONMENT, *config.CHANNEL_ENVIRONMENT, *config.SECRET_ENVIRONMENT}

    for service in ("migrate", "web", "worker"):
        assert set(services[service]["environment"]) - {"POSTGRES_PASSWORD"} <= known
        assert {"PYFLUE_DATABASE_URL", "PYFLUE_REDIS_URL"} <= set(services[service]["environment"])
        assert services[service]["env_file"] == [".env"]


def test_the_image_runs_as_a_user_without_rights_from_the_locked_dependencies(dockerfile: str) -> None:
    final = dockerfile.rpartition("\nFROM ")[2]

    assert re.search(r"^USER (?!root\b|0\b)\w+$", final, re.MULTILINE)
    assert "uv sync --frozen --no-dev" in dockerfile


def test_the_image_holds_no_secret_and_nothing_but_the_packages() -> None:
    allowed = {line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}

    assert allowed == {"!pyproject.toml", "!uv.lock", "!README.md", "!LICENSE", "!pyflue", "!web", "!workers"}
