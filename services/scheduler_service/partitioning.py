"""Keeps the daily partitions of history: makes those to come, drops those kept no longer.

Every change waits 100 ms for its locks at most, since all who read or finish jobs queue behind it;
what was busy is done by a later pass. Each step leaves a state that the next pass goes on from.
The scheduler owns no table: each change is a function of the database that runs as the owner, in
the transactions that are begun here.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
import structlog

from scheduler_service import queries
from scheduler_service.queries import partition_name
from taskforge_core.database_errors import is_conflict

log = structlog.get_logger(__name__)

DAYS_AHEAD = 7
"""How far partitions are made in advance: that long may the scheduler be away without a trace."""

_PREFIX = "job_history_"

Connection = Any
"""A connection taken from a pool: `asyncpg.Connection` or its proxy."""


class _NotNow(Exception):
    """Another scheduler has the turn, or has changed the day: leave it to the next pass."""


class PartitionKeeper:
    """Makes and retires the days of history, and deletes what is too old in no day's partition."""

    def __init__(
        self, pool: "asyncpg.Pool[Any]", retention: timedelta, batch_size: int = 5000
    ) -> None:
        """`retention` is how long finished jobs are kept; whole UTC days are dropped."""
        self._pool = pool
        self._retention = retention
        self._batch_size = batch_size

    async def run_once(self) -> bool:
        """Bring the partitions up to date; True if more old jobs wait to be deleted."""
        async with self._pool.acquire() as connection:
            today, first_kept = await queries.read_days(connection, self._retention)
            tables = await queries.list_partitions(connection)
            for ahead in range(DAYS_AHEAD + 1):
                day = today + timedelta(days=ahead)
                if not tables.get(partition_name(day)):
                    await self._make(connection, day)
            for name, is_attached in tables.items():
                day_of_table = _day_of(name)
                if day_of_table is not None and day_of_table < first_kept:
                    await self._retire(connection, day_of_table, is_attached=is_attached)
            deleted = await queries.delete_old_default_history(
                connection, first_kept, self._batch_size
            )
        return deleted >= self._batch_size

    async def _make(self, connection: Connection, day: date) -> None:
        try:
            async with _turn(connection):
                await queries.create_partition(connection, day)
            async with _turn(connection):
                if (await queries.list_partitions(connection)).get(partition_name(day)):
                    return
                if await queries.default_holds_day(connection, day):
                    log.warning("partition_skipped", day=str(day), reason="DEFAULT has its jobs")
                    return
                await queries.attach_partition(connection, day)
        except _NotNow:
            return
        except asyncpg.CheckViolationError:
            log.warning("partition_skipped", day=str(day), reason="DEFAULT has its jobs")
        except asyncpg.PostgresError as error:
            _pass_over_conflict(error, day)
        else:
            log.info("partition_made", day=str(day))

    async def _retire(self, connection: Connection, day: date, *, is_attached: bool) -> None:
        try:
            if is_attached:
                await self._empty(connection, day)
                await self._detach(connection, day)
            await self._drop(connection, day)
        except _NotNow:
            return
        except asyncpg.PostgresError as error:
            _pass_over_conflict(error, day)

    async def _empty(self, connection: Connection, day: date) -> None:
        """Subtract the day's jobs from the counts and delete them, at one moment for readers."""
        async with _turn(connection, day, attached=True):
            await queries.lock_partition(connection, day)
            if await queries.partition_is_empty(connection, day):
                return
            jobs = await queries.subtract_partition(connection, day)
            await queries.empty_partition(connection, day)
        log.info("partition_emptied", day=str(day), jobs=jobs)

    async def _detach(self, connection: Connection, day: date) -> None:
        async with _turn(connection, day, attached=True):
            await queries.lock_partition(connection, day)
            if not await queries.partition_is_empty(connection, day):
                raise _NotNow
            await queries.detach_partition(connection, day)

    async def _drop(self, connection: Connection, day: date) -> None:
        """Drop the emptied table; one that holds jobs was taken out by a person, and is theirs."""
        async with _turn(connection, day, attached=False):
            await queries.lock_partition(connection, day)
            if not await queries.partition_is_empty(connection, day):
                return
            await queries.drop_partition(connection, day)
        log.info("partition_dropped", day=str(day))


@asynccontextmanager
async def _turn(
    connection: Connection, day: date | None = None, *, attached: bool = False
) -> AsyncIterator[None]:
    """A transaction in which nobody else changes partitions, and that waits only briefly.

    Raises:
        _NotNow: Another has the turn, or has meanwhile attached, detached or dropped the day.
    """
    async with connection.transaction():
        await queries.wait_briefly(connection)
        if not await queries.take_partition_turn(connection):
            raise _NotNow
        if day is not None:
            tables = await queries.list_partitions(connection)
            if tables.get(partition_name(day)) is not attached:
                raise _NotNow
        yield


def _day_of(table: str) -> date | None:
    try:
        return datetime.strptime(table, f"{_PREFIX}%Y%m%d").date()  # noqa: DTZ007 (a date only)
    except ValueError:
        return None


def _pass_over_conflict(error: asyncpg.PostgresError, day: date) -> None:
    if not is_conflict(error):
        raise error
    log.info("partition_busy", day=str(day))
