"""Removes what is of no use any more. Each method is one pass; True says that more may wait."""

from datetime import timedelta
from itertools import groupby
from typing import Any

import asyncpg
import structlog

from scheduler_service import queries
from taskforge_core.queries import cancel_waiting_jobs

log = structlog.get_logger(__name__)

SESSION_SILENCE = timedelta(days=1)
"""A session's row is kept this long after its last sign of life, for those who look into it."""

SERVER_SILENCE = timedelta(hours=1)
"""A replica's row is kept this long after its last sign of life; its streams are lost at once."""

DELETED_QUEUE_AGE = timedelta(hours=1)
"""A deleted queue's row is kept at least this long: far longer than a transaction that has read it
before the deletion can last, and so can still put a job into it."""


class Cleaner:
    """Removes request ids, sessions, servers and deleted queues when their time is over."""

    def __init__(
        self,
        pool: "asyncpg.Pool[Any]",
        request_id_retention: timedelta,
        batch_size: int = 1000,
    ) -> None:
        self._pool = pool
        self._request_id_retention = request_id_retention
        self._batch_size = batch_size

    async def forget_requests(self) -> bool:
        """Forget request ids that are older than they are kept."""
        forgotten = await queries.forget_requests(
            self._pool, self._request_id_retention, self._batch_size
        )
        return forgotten >= self._batch_size

    async def remove_sessions(self) -> bool:
        """Remove sessions that hold nothing and have been silent for a day."""
        async with self._pool.acquire() as connection, connection.transaction():
            departed = await queries.lock_departed_sessions(
                connection, SESSION_SILENCE, self._batch_size
            )
            removed = await queries.remove_sessions(
                connection,
                [session["project_id"] for session in departed],
                [session["session_id"] for session in departed],
            )
        # One that holds a lease waits for its rescue; asking again at once would not hasten it.
        return len(removed) >= self._batch_size

    async def remove_servers(self) -> None:
        """Remove replicas that have been silent for an hour."""
        for server_id in await queries.remove_dead_servers(self._pool, SERVER_SILENCE):
            log.info("server_removed", server_id=str(server_id))

    async def clear_deleted_queues(self) -> bool:
        """Cancel what slipped into deleted queues, and remove the queues that hold nothing."""
        found = await queries.find_waiting_jobs_of_deleted_queues(self._pool, self._batch_size)
        cancelled = 0
        by_project = sorted((row["project_id"], row["id"]) for row in found)
        for project_id, rows in groupby(by_project, key=lambda row: row[0]):
            ids = [job_id for _, job_id in rows]
            cancelled += len(await cancel_waiting_jobs(self._pool, project_id, ids))
        if cancelled:
            log.warning("jobs_of_deleted_queues_cancelled", jobs=cancelled)
        for queue_id in await queries.remove_deleted_queues(self._pool, DELETED_QUEUE_AGE):
            log.info("queue_removed", queue_id=str(queue_id))
        return cancelled >= self._batch_size

    async def remove_empty_counts(self) -> bool:
        """Remove the counts of removed queues whose history is gone."""
        removed = await queries.remove_empty_counts(self._pool, self._batch_size)
        return removed >= self._batch_size
