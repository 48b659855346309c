"""Settings: read once, strictly, and without ever showing a secret."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pyflue.config import SECRET_ENVIRONMENT, Secret, load_project
from pyflue.errors import ConfigurationError


def write(folder: Path, text: str) -> Path:
    file = folder / "pyflue.toml"
    file.write_text(text, "utf-8")
    return file


def test_without_a_file_everything_is_the_embedded_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    project = load_project(env={})

    assert project.database_url == f"sqlite:///{tmp_path}/.pyflue/pyflue.sqlite3"
    assert not project.settings.broker.url


def test_a_file_named_by_the_caller_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no settings file '.*other.toml'"):
        load_project(tmp_path / "other.toml", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[worker]\nturn = 5\n", "turn"),
        ("[wroker]\n", "wroker"),
        ("[worker]\nturns = 0\n", "turns"),
        ('[worker]\nturns = "many"\n', "turns"),
        ("[worker]\nlease = inf\n", "lease"),
        ("[worker]\nlease = 2.0\n", r"heartbeat \(1\) must be shorter than lease \(2\) minus fence_margin \(3\)"),
        ("[web]\nport = 99999\n", "port"),
        ('[channels.github]\nreply = "auto"\n', "agent"),
        ('storage = "sqlite:///x"\n', "storage"),
    ],
)
def test_what_a_setting_cannot_be_is_said_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)

    with pytest.raises(ConfigurationError, match=said):
        load_project(file, {})


@pytest.mark.parametrize("text", ["[worker", "a = ", "\x00"])
def test_a_file_that_is_not_toml_says_where(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, text)

    with pytest.raises(ConfigurationError, match="not valid TOML"):
        load_project(file, {})


def test_bytes_that_are_not_utf_8_are_an_error_not_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "pyflue.toml"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigurationError, match="not valid TOML"):
        load_project(file, {})


def test_a_file_that_cannot_be_read_is_an_error_not_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyflue.toml").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigurationError, match=r"pyflue\.toml cannot be read"):
        load_project(env={})


def test_a_variable_that_cannot_be_used_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigurationError, match=r"log\.level.*or the variable that sets it"):
        load_project(env={"PYFLUE_LOG_LEVEL": "loud"})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[storage]\nurl = "sqlite:///a.sqlite3"\n[channels.github]\nagent = "a"\n')

    project = load_project(file, {"PYFLUE_DATABASE_URL": "memory:", "GITHUB_API_URL": "http://127.0.0.1:9"})

    assert project.database_url == "memory:"
    assert project.settings.channels["github"].api_url == "http://127.0.0.1:9"


def test_the_environment_of_a_channel_without_a_table_makes_no_channel(tmp_path: Path) -> None:
    file = write(tmp_path, "")

    assert load_project(file, {"SLACK_API_URL": "http://127.0.0.1:9"}).settings.channels == {}


def test_a_relative_database_starts_at_the_project_not_at_the_working_folder(tmp_path: Path) -> None:
    file = write(tmp_path, '[storage]\nurl = "sqlite:///data/x.sqlite3"\n')

    assert load_project(file, {}).database_url == f"sqlite:///{tmp_path}/data/x.sqlite3"


def test_a_secret_shows_itself_nowhere(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    environment = dict.fromkeys(SECRET_ENVIRONMENT, "s3cr3t-value")

    project = load_project(file, environment)

    assert project.secrets.github_token.reveal() == "s3cr3t-value"
    assert "s3cr3t-value" not in repr(project) + str(project.secrets) + f"{project.secrets.slack_bot_token!s}"
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret("s3cr3t-value"))


def test_agents_are_handed_the_environment_without_our_secrets(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    ours = dict.fromkeys([*SECRET_ENVIRONMENT, "PYFLUE_REDIS_URL"], "s3cr3t-value")

    project = load_project(file, {**ours, "PYFLUE_DATABASE_URL": "memory:", "REGION": "north"})

    assert project.env == {"REGION": "north"}
