"""The two ways to the database, kept apart so that browsing cannot starve heartbeats.

`Database.hot` is an asyncpg pool for the statements of `queries/*.sql`; `Database.engine` is a
SQLAlchemy engine with a small pool of its own for administration and browsing. LISTEN and leader
election use `connect_direct`. JSON travels as text on all of them.
"""

import asyncio
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Self

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from taskforge_core import migrating
from taskforge_core.database_errors import DATABASE_EXCEPTIONS, translate_database_error
from taskforge_core.settings import Settings

__all__ = ["Database", "connect_direct", "translate_database_error"]

log = structlog.get_logger(__name__)

_HOT_PLANS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
}
"""Every hot statement finds its rows by an index, row by row and, where it wants the first few, in
the order of the index. A plan that was made while a table was small and is kept while it grows must
do so too: else a batch may read the whole table, and a claim sort the whole backlog of a queue.
What needs a sort nevertheless, such as the merge of several queues, still gets one."""

_ADVICE = {
    migrating.SchemaState.MISSING: "run taskforge migrate",
    migrating.SchemaState.BEHIND: "run taskforge migrate",
    migrating.SchemaState.NEWER: "run the release that migrated it",
}

_READY_TIMEOUT = 3.0
_CLOSE_TIMEOUT = 5.0
_UNUSED_CONNECTION_LIFETIME = 300.0
_QUERIES_OF_A_CONNECTION = 1_000_000
"""Then it is replaced, which frees what its backend has gathered in caches."""


class _HotPool(asyncpg.Pool):
    """A pool that does not let anybody wait for ever for a free connection."""

    def __init__(self, dsn: str, *, timeout: float, **options: Any) -> None:
        """`timeout`, in seconds, is for making a connection and for getting a free one."""
        super().__init__(dsn, timeout=timeout, **options)
        self._patience = timeout

    def acquire(self, *, timeout: float | None = None) -> Any:
        """A connection, also for `pool.fetch` and its like; TimeoutError when none gets free."""
        return super().acquire(timeout=timeout or self._patience)


class Database:
    """What a process holds of the database. Made by `open`, given to the use cases."""

    def __init__(self, settings: Settings, hot: "asyncpg.Pool[Any]", engine: AsyncEngine) -> None:
        """Use `open` instead."""
        self.settings = settings
        self.hot = hot
        """asyncpg pool for the hot statements; `search_path` is `taskforge`."""
        self.engine = engine
        """SQLAlchemy engine for administration and browsing; `search_path` is `taskforge`."""
        self._was_current = False
        self._complained_of: migrating.SchemaState | None = None

    @classmethod
    async def open(cls, settings: Settings, *, application_name: str = "taskforge") -> Self:
        """Make both pools.

        Connections are made when they are needed, so this succeeds while the database is away;
        `ready` tells when it is there.

        Raises:
            MissingDatabaseUrl: The settings name no database.
        """
        dsn = settings.require_database_url()
        cached_statements = 1024 if settings.statement_cache else 0
        hot = await _HotPool(
            dsn,
            min_size=0,
            max_size=settings.hot_pool_size,
            max_queries=_QUERIES_OF_A_CONNECTION,
            max_inactive_connection_lifetime=_UNUSED_CONNECTION_LIFETIME,
            loop=None,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
            timeout=settings.connect_timeout.total_seconds(),
            # Postgres enforces the limit; this one catches a server that went silent.
            command_timeout=_client_side_limit(settings.statement_timeout),
            statement_cache_size=cached_statements,
            reset=_nothing_to_reset,
            server_settings=session_settings(
                settings, f"{application_name}:hot", settings.statement_timeout
            )
            | (_HOT_PLANS if settings.statement_cache else {}),
        )

        async def connect_to_browse(**_: object) -> "asyncpg.Connection[Any]":
            return await asyncpg.connect(
                dsn,
                timeout=settings.connect_timeout.total_seconds(),
                command_timeout=_client_side_limit(settings.browse_statement_timeout),
                statement_cache_size=cached_statements,
                server_settings=session_settings(
                    settings, f"{application_name}:browse", settings.browse_statement_timeout
                ),
            )

        connect_args: dict[str, Any] = {"async_creator_fn": connect_to_browse}
        if not settings.statement_cache:
            # Behind a pooler another client's statement may bear the same name.
            connect_args["prepared_statement_cache_size"] = 0
            connect_args["prepared_statement_name_func"] = lambda: f"__taskforge_{uuid.uuid4()}__"
        engine = create_async_engine(
            "postgresql+asyncpg://",
            connect_args=connect_args,
            pool_size=settings.browse_pool_size,
            max_overflow=0,
            pool_timeout=settings.connect_timeout.total_seconds(),
            pool_pre_ping=True,
            # What callers send stays out of the log when a statement fails.
            hide_parameters=True,
            json_serializer=_as_is,
            json_deserializer=_as_is,
        )
        return cls(settings, hot, engine)

    async def ready(self) -> bool:
        """Whether the database answers and its schema is one that this code works with.

        A schema that somebody upgraded further while this process was serving does not make it
        unready: upgrades stay compatible with the release before them. A wrong one is logged once,
        since this is asked every few seconds.
        """
        try:
            async with asyncio.timeout(_READY_TIMEOUT), self.hot.acquire() as connection:
                state = await migrating.schema_state(connection)
        except DATABASE_EXCEPTIONS as error:
            log.warning("database_not_ready", error=type(error).__name__, detail=str(error))
            return False
        if state is migrating.SchemaState.CURRENT:
            self._was_current = True
            self._complained_of = None
            return True
        if state is migrating.SchemaState.NEWER and self._was_current:
            return True
        if state is not self._complained_of:
            self._complained_of = state
            log.warning(
                "schema_not_current",
                state=state.value,
                head=migrating.head_revision(),
                advice=_ADVICE[state],
            )
        return False

    async def close(self) -> None:
        """Close both pools; what is still in use after 5 s is cut off."""
        await self.engine.dispose()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.hot.close()
        except TimeoutError:
            self.hot.terminate()


async def connect_direct(
    settings: Settings,
    *,
    application_name: str,
    server_settings: Mapping[str, str] | None = None,
) -> "asyncpg.Connection[Any]":
    """A connection outside the pools, for LISTEN and session locks; never through a pooler.

    Args:
        settings: Where to connect: `listen_url`, else `database_url`.
        application_name: How the session is listed in `pg_stat_activity`.
        server_settings: Postgres settings of this session, over the usual ones.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError: It cannot be made.
    """
    usual = session_settings(
        settings, application_name, settings.statement_timeout, through_pooler=False
    )
    return await asyncpg.connect(
        settings.require_listen_url(),
        timeout=settings.connect_timeout.total_seconds(),
        command_timeout=_client_side_limit(settings.statement_timeout),
        server_settings={**usual, **(server_settings or {})},
    )


def session_settings(
    settings: Settings,
    application_name: str,
    statement_timeout: timedelta,
    *,
    through_pooler: bool | None = None,
) -> dict[str, str]:
    """The Postgres settings that a session starts with; only its name when behind a pooler."""
    if through_pooler is None:
        through_pooler = not settings.statement_cache
    if through_pooler:
        # A pooler shares sessions and refuses settings that it does not track.
        return {"application_name": application_name}
    return {
        "application_name": application_name,
        "search_path": "taskforge",
        "timezone": "UTC",
        "jit": "off",
        "statement_timeout": _milliseconds(statement_timeout),
        "lock_timeout": _milliseconds(settings.lock_timeout),
        "idle_in_transaction_session_timeout": _milliseconds(settings.idle_in_transaction_timeout),
    }


def _milliseconds(duration: timedelta) -> str:
    return str(max(1, round(duration.total_seconds() * 1000)))


def _client_side_limit(statement_timeout: timedelta) -> float:
    return statement_timeout.total_seconds() + 5.0


async def _nothing_to_reset(connection: object) -> None:
    """Save the round trip of RESET ALL: no code of ours changes the session of a pooled connection.

    asyncpg itself rolls back a transaction that was left open.
    """


def _as_is(document: Any) -> Any:
    """JSON stays the text that it is."""
    return document
