"""Leader election: of several schedulers one works, the others wait to take over.

The leader holds a session advisory lock on a connection of its own. When it dies, Postgres sees the
connection close and frees the lock; when it freezes, Postgres ends the session for being idle.
Leadership only saves work: every pass is correct when two schedulers run it at once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import structlog

from scheduler_service.queries import try_to_lead
from taskforge_core.database import connect_direct
from taskforge_core.database_errors import DATABASE_EXCEPTIONS
from taskforge_core.settings import Settings

log = structlog.get_logger(__name__)

LEADER_LOCK = 0x7461_736B_6C65_6164
"""Key of the advisory lock that the leader holds: the letters `tasklead`."""

PING_EVERY = timedelta(seconds=1)
"""How often `run_once` is meant to run."""

_IDLE_LIMIT_SECONDS = 5.0
_PING_TIMEOUT_SECONDS = 2.0
_VALID_SECONDS = 4.0
"""How long after its last answered ping a leader believes in itself: less than the idle limit, so
that it has stopped before Postgres can have given the lock to another."""


class Leader:
    """This process's candidacy."""

    def __init__(
        self,
        settings: Settings,
        on_elected: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Announce it.

        Args:
            settings: Where the database is; the connection never goes through a pooler.
            on_elected: Called whenever this process becomes the leader.
            clock: Seconds, only ever growing.
        """
        self._settings = settings
        self._on_elected = on_elected
        self._clock = clock
        self._connection: asyncpg.Connection[Any] | None = None
        self._holds_lock = False
        self._pinged_at = 0.0

    @property
    def is_leading(self) -> bool:
        """Whether the lock is held for all that this process can know."""
        return (
            self._holds_lock
            and self._connection is not None
            and not self._connection.is_closed()
            and self._clock() - self._pinged_at < _VALID_SECONDS
        )

    async def run_once(self) -> None:
        """Ping the lock, or try to take it; reconnect if need be. Never raises for the database."""
        was_leading = self._holds_lock
        try:
            if self._connection is not None and self._connection.is_closed():
                raise ConnectionResetError("the server closed the connection")
            if self._connection is None:
                self._connection = await self._connect()
            pinged_at = self._clock()
            async with asyncio.timeout(_PING_TIMEOUT_SECONDS):
                if self._holds_lock:
                    await self._connection.execute("SELECT 1")
                else:
                    self._holds_lock = await try_to_lead(self._connection, LEADER_LOCK)
            self._pinged_at = pinged_at
        except DATABASE_EXCEPTIONS as error:
            self._drop_connection()
            log.warning("leader_lock_unreachable", was_leading=was_leading, error=repr(error))
            return
        if self._holds_lock and not was_leading:
            log.info("leading")
            self._on_elected()

    async def resign(self) -> None:
        """Give the lock to whoever asks next."""
        connection, self._connection = self._connection, None
        self._holds_lock = False
        if connection is None:
            return
        try:
            await connection.close(timeout=_PING_TIMEOUT_SECONDS)
        except DATABASE_EXCEPTIONS:
            connection.terminate()

    def only_while_leading(
        self, run_once: Callable[[], Awaitable[object]]
    ) -> Callable[[], Awaitable[bool]]:
        """The pass, but doing nothing while another process leads."""

        async def run_if_leading() -> bool:
            return self.is_leading and await run_once() is True

        return run_if_leading

    async def _connect(self) -> "asyncpg.Connection[Any]":
        idle_limit = str(round(_IDLE_LIMIT_SECONDS * 1000))
        return await connect_direct(
            self._settings,
            application_name="scheduler_service:leader",
            server_settings={
                "idle_session_timeout": idle_limit,
                "idle_in_transaction_session_timeout": idle_limit,
            },
        )

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._holds_lock = False
