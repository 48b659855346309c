"""One setting chooses the store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyflue.errors import ConfigurationError
from pyflue.stores.choose import open_store
from pyflue.stores.memory import MemoryStore
from pyflue.stores.postgres import PostgresStore
from pyflue.stores.sqlite import SQLiteStore


async def test_a_sqlite_url_names_a_file(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/deep/down/pyflue.sqlite3")
    await store.migrate()

    assert isinstance(store, SQLiteStore)
    assert (tmp_path / "deep/down/pyflue.sqlite3").exists()


def test_memory_and_postgres_urls_choose_their_stores() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_store("postgresql://somebody@somewhere/name"), PostgresStore)


@pytest.mark.parametrize("url", ["mysql://root:hunter2@host/name", "hunter2", "sqlite:///", "", "postgresql:hunter2"])
def test_another_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_store(url)

    assert "hunter2" not in f"{refused.value} {refused.value.detail}"
    assert "root" not in str(refused.value)


def test_choosing_sqlite_does_not_import_psycopg() -> None:
    code = "import sys, pyflue.stores.choose as c; c.open_store('sqlite:///x'); print('psycopg' in sys.modules)"

    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert seen.stdout.strip() == "False"
