"""Removes a queue's jobs of chosen statuses: waiting ones are cancelled, finished ones deleted."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from queue_service import queries
from queue_service.finding import find_queue
from queue_service.walking import BATCH, BATCH_BYTES, PAGE, batches, light_batches, pages
from taskforge.v1 import queue_service_pb2
from taskforge_core.auditing import append_audit_entry
from taskforge_core.counting import JobCounts, read_counts
from taskforge_core.database import Database
from taskforge_core.projects import Projects
from taskforge_core.queries import Executor, cancel_waiting_jobs
from taskforge_core.statuses import FINISHED, WAITING, JobStatus

log = structlog.get_logger(__name__)


class Purger:
    """Purges in batches, a transaction each, so that claims and settles wait for none of it long.

    A running job is never touched, whatever it was when the call began; neither is what was
    created or finished since.
    """

    def __init__(
        self, database: Database, projects: Projects, *, page: int = PAGE, batch: int = BATCH
    ) -> None:
        self._database = database
        self._projects = projects
        self._page = page
        self._batch = batch

    async def purge(
        self, request: queue_service_pb2.PurgeQueueRequest
    ) -> queue_service_pb2.PurgeQueueResponse:
        """Remove the jobs of the named statuses, or only count them; each batch is audited.

        What was removed before an error stays removed.

        Raises:
            NotFound: `PROJECT_NOT_FOUND`, `QUEUE_NOT_FOUND`.
        """
        project_id = await self._projects.resolve(request.project_id)
        statuses = {JobStatus(status) for status in request.statuses}
        waiting, finished = sorted(statuses & WAITING), sorted(statuses & FINISHED)
        async with self._database.engine.connect() as connection:
            row = await find_queue(connection, project_id, request.queue)
            queue_id: UUID = row["id"]
            if request.dry_run:
                counts = await read_counts(connection, project_id, queue_id)
                return queue_service_pb2.PurgeQueueResponse(
                    cancelled_jobs=_sum(counts, waiting), deleted_jobs=_sum(counts, finished)
                )
        began = await queries.read_clock(self._database.hot)
        # The finished ones first: those that are cancelled now are no part of them.
        deleted = await self._delete(project_id, queue_id, finished, began) if finished else 0
        cancelled = await self._cancel(project_id, queue_id, waiting, began) if waiting else 0
        log.info("queue_purged", queue_id=str(queue_id), cancelled=cancelled, deleted=deleted)
        return queue_service_pb2.PurgeQueueResponse(cancelled_jobs=cancelled, deleted_jobs=deleted)

    async def _cancel(
        self, project_id: UUID, queue_id: UUID, statuses: Sequence[JobStatus], began: datetime
    ) -> int:
        read = partial(
            queries.list_unfinished_jobs,
            self._database.hot,
            project_id,
            queue_id,
            began,
            limit=self._page,
        )
        cancelled = 0
        async for page in pages(read, self._page):
            chosen = [row for row in page if row["status"] in statuses]
            for batch in light_batches(chosen, self._batch, BATCH_BYTES):
                ids = sorted(row["id"] for row in batch)
                async with self._database.hot.acquire() as connection, connection.transaction():
                    locked = await queries.lock_waiting_jobs(
                        connection, project_id, queue_id, ids, statuses
                    )
                    gone = len(await cancel_waiting_jobs(connection, project_id, locked))
                    await _record(connection, project_id, queue_id, "cancelled_jobs", gone)
                    cancelled += gone
        return cancelled

    async def _delete(
        self, project_id: UUID, queue_id: UUID, statuses: Sequence[JobStatus], began: datetime
    ) -> int:
        pool = self._database.hot
        read = partial(queries.list_finished_jobs, pool, project_id, queue_id, limit=self._page)
        deleted = 0
        async for page in pages(read, self._page):
            chosen = [
                row for row in page if row["status"] in statuses and row["completed_at"] < began
            ]
            for batch in batches(chosen, self._batch):
                async with pool.acquire() as connection, connection.transaction():
                    gone = await queries.delete_finished_jobs(
                        connection,
                        project_id,
                        [row["id"] for row in batch],
                        [row["completed_at"] for row in batch],
                    )
                    await _record(connection, project_id, queue_id, "deleted_jobs", gone)
                deleted += gone
        return deleted


async def _record(
    connection: Executor, project_id: UUID, queue_id: UUID, kind: str, jobs: int
) -> None:
    if jobs:
        await append_audit_entry(
            connection,
            "PurgeQueue",
            f"queues/{queue_id}",
            project_id=project_id,
            detail={kind: jobs},
        )


def _sum(counts: JobCounts, statuses: Sequence[JobStatus]) -> int:
    return sum(getattr(counts, status.name.lower()) for status in statuses)
