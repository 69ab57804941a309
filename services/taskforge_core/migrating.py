"""Schema migrations: Alembic as the bookkeeper, hand-written SQL as the content.

A revision is a Python file in `migrations/versions/` with a `.sql` of the same name beside it.
`migrate` may be called by any number of replicas at once: an advisory lock lets one work and the
others wait. The version table is `taskforge.alembic_version`.
"""

import asyncio
import enum
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine

log = structlog.get_logger(__name__)

SCHEMA = "taskforge"
"""The schema that holds all of TaskForge."""

MIGRATION_LOCK = 0x7461_736B_666F_7267
"""Key of the advisory lock under which migrations run: the letters `taskforg`."""

_LOCK_POLL_SECONDS = 0.1
_CONNECT_TIMEOUT = 10.0


class SchemaIsNewer(Exception):
    """The database was migrated by a later release; this one does not know its schema."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"the database's schema is at revision {revision}, which this release does not know;"
            " it was migrated by a later release"
        )
        self.revision = revision


class SchemaState(enum.Enum):
    """How the database's schema compares with what this code was written for."""

    MISSING = "missing"
    BEHIND = "behind"
    CURRENT = "current"
    NEWER = "newer"


class Fetches(Protocol):
    """The part of an asyncpg connection or pool that reading the version needs."""

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first column of the first row."""


async def migrate(dsn: str) -> str:
    """Bring the database at `dsn` (a direct connection, no pooler) to this release's schema.

    Waits while another process migrates. Each revision is one transaction, so an error leaves the
    schema at the last complete one.

    Returns:
        The revision that the schema is at now.

    Raises:
        SchemaIsNewer: A later release migrated it; nothing was changed.
        OSError, asyncpg.PostgresError: The database is not there, or refused a statement.
    """

    async def connect(**_: object) -> "asyncpg.Connection[Any]":
        return await asyncpg.connect(
            dsn,
            timeout=_CONNECT_TIMEOUT,
            server_settings={"application_name": "taskforge:migrate", "search_path": SCHEMA},
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args={"async_creator_fn": connect},
        poolclass=pool.NullPool,
    )
    try:
        async with engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await _take_lock(driver)
            try:
                await driver.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                before = await current_revision(driver)
                if _state_of(before) is SchemaState.NEWER:
                    raise SchemaIsNewer(str(before))
                if before != head_revision():
                    await connection.run_sync(_upgrade)
                    log.info("schema_migrated", before=before, now=head_revision())
            finally:
                if not driver.is_closed():
                    await driver.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)
    finally:
        await engine.dispose()
    return head_revision()


async def current_revision(connection: Fetches) -> str | None:
    """The revision that the database is at; None where nothing was ever migrated."""
    exists = await connection.fetchval(
        "SELECT to_regclass('taskforge.alembic_version') IS NOT NULL"
    )
    if not exists:
        return None
    revision: str | None = await connection.fetchval(
        "SELECT version_num FROM taskforge.alembic_version"
    )
    return revision


async def schema_state(connection: Fetches) -> SchemaState:
    """How the database's schema compares with this release."""
    return _state_of(await current_revision(connection))


async def is_current(connection: Fetches) -> bool:
    """Whether the schema is exactly the one of this release."""
    return await schema_state(connection) is SchemaState.CURRENT


@cache
def head_revision() -> str:
    """The revision that this release works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("this installation holds no migrations")
    return head


@cache
def known_revisions() -> frozenset[str]:
    """Every revision that this release knows."""
    scripts = ScriptDirectory.from_config(_config())
    return frozenset(script.revision for script in scripts.walk_revisions())


def _state_of(revision: str | None) -> SchemaState:
    if revision is None:
        return SchemaState.MISSING
    if revision == head_revision():
        return SchemaState.CURRENT
    return SchemaState.BEHIND if revision in known_revisions() else SchemaState.NEWER


async def _take_lock(driver: Any) -> None:
    """Poll for the lock, and for a reason.

    A session that waits inside Postgres holds a snapshot, on which the holder's
    CREATE INDEX CONCURRENTLY would wait in turn.
    """
    take = "SELECT pg_try_advisory_lock($1)"
    while not await driver.fetchval(take, MIGRATION_LOCK):  # noqa: ASYNC110 - others hold it
        await asyncio.sleep(_LOCK_POLL_SECONDS)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
