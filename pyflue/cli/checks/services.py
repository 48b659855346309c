"""Are storage and broker there, and does the schema fit?"""

from __future__ import annotations

import sys
from pathlib import Path

from pyflue.cli.checks.finding import Finding, fail, ok, warn
from pyflue.config import Project
from pyflue.errors import ConfigurationError, SchemaError, StoreError
from pyflue.stores.protocol import Store


def kind_of_storage(project: Project) -> str:
    """Name the storage without its address, which may hold a password; a local file is no secret."""
    url = project.database_url
    if url.startswith("sqlite:///"):
        return f"SQLite, {url.removeprefix('sqlite:///')}"
    return "in memory" if url.startswith("memory:") else "Postgres"


async def check_storage(project: Project, store: Store) -> Finding:
    """Open the store; anything but ``fail`` or a missing file means that it is open now."""
    kind = kind_of_storage(project)
    if project.database_url.startswith("memory:"):
        return warn("storage", "In memory: nothing is durable, and no other process sees it.", "Set [storage] url.")
    try:
        await store.open()
        await store.ready()
    except SchemaError as error:
        return fail("storage", f"{kind}: reachable, but its schema does not fit. {error.cause}", error.fix)
    except StoreError as error:
        detail = f" ({error.detail})" if error.detail else ""
        return fail("storage", f"{kind}: {error.what} {error.cause}{detail}", "Start the database, or correct its URL.")
    return ok("storage", f"{kind}: reachable, schema current.")


def missing_file(project: Project) -> Finding | None:
    """Tell when the embedded database was not made yet, which its first process does."""
    path = Path(project.database_url.removeprefix("sqlite:///"))
    if not project.database_url.startswith("sqlite:///") or path.exists():
        return None
    return warn("storage", f"{kind_of_storage(project)}: there is no such file yet.", "`pyflue dev` makes it.")


async def check_broker(project: Project) -> Finding:
    """Ping Redis within the time a ring has; it carries nothing that would be lost."""
    broker = project.settings.broker
    if not broker.url:
        if project.database_url.startswith(("sqlite:", "memory:")):
            return ok("broker", "None: embedded, front and worker share a process.")
        return warn(
            "broker",
            "None: workers look for work once a second, and nothing wakes them before.",
            "Set PYFLUE_REDIS_URL for quick pick-up.",
        )
    from pyflue.bells.redis import RedisBell  # the embedded default does without redis

    try:
        bell = RedisBell(broker.url, broker.namespace)
    except ConfigurationError as error:
        return fail("broker", f"{error.what} {error.cause}", error.fix)
    try:
        if await bell.ping():
            return ok("broker", f"Redis: reachable, keys begin with {broker.namespace!r}.")
    finally:
        await bell.close()
    return warn(
        "broker",
        "Redis does not answer: nothing is lost, but work is picked up up to a second later.",
        "Start Redis, or correct PYFLUE_REDIS_URL.",
    )


def check_release() -> Finding:
    """Say which PyFlue and Python this is, for whoever reads the output elsewhere."""
    from importlib.metadata import version

    return ok("release", f"PyFlue {version('pyflue')} on Python {sys.version.split(maxsplit=1)[0]}.")
