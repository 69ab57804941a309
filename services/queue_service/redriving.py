"""Takes jobs of a dead-letter queue back to the queues that they came from."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from asyncpg import Record

from queue_service import queries
from queue_service.finding import find_queue
from queue_service.topics import WORK_READY
from queue_service.walking import BATCH, PAGE, batches, pages
from taskforge.v1 import queue_service_pb2
from taskforge_core.auditing import append_audit_entry
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.queries import Executor
from taskforge_core.statuses import WAITING, JobStatus

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which jobs a call is about."""

    project_id: UUID
    queue_id: UUID
    job_type: str
    """Empty: every type."""
    origin_id: UUID | None
    """None: from whichever queue."""

    def takes(self, row: Record) -> bool:
        """Whether a job of the queue is meant, as far as it tells itself."""
        origin_id = row["origin_queue_id"]
        return (
            row["status"] in WAITING
            and origin_id not in {None, self.queue_id}
            and self.origin_id in {None, origin_id}
            and self.job_type in {"", row["job_type"]}
        )


class Redriver:
    """Redrives in batches, a transaction each, the oldest jobs first.

    A job that another transaction has locked, such as one that is being leased, is passed over.
    """

    def __init__(
        self,
        database: Database,
        projects: Projects,
        notifier: Notifier,
        *,
        page: int = PAGE,
        batch: int = BATCH,
    ) -> None:
        self._database = database
        self._projects = projects
        self._notifier = notifier
        self._page = page
        self._batch = batch

    async def redrive(
        self, request: queue_service_pb2.RedriveJobsRequest
    ) -> queue_service_pb2.RedriveJobsResponse:
        """Take the chosen jobs back, or only count them; each batch is audited.

        Jobs that come into the queue after the call began stay: one that fails again at once does
        not make the call endless. What went back before an error stays there.

        Raises:
            NotFound: `PROJECT_NOT_FOUND`; the queue or `origin_queue` is not there
                (`QUEUE_NOT_FOUND`).
        """
        choice = await self._choice(request)
        most = request.max_jobs or None
        if request.dry_run:
            jobs = await self._count(choice, most)
        else:
            jobs = await self._move(choice, most, request.jobs_per_second or None)
            log.info("jobs_redriven", queue_id=str(choice.queue_id), jobs=jobs)
        return queue_service_pb2.RedriveJobsResponse(redriven_jobs=jobs)

    async def _choice(self, request: queue_service_pb2.RedriveJobsRequest) -> Choice:
        project_id = await self._projects.resolve(request.project_id)
        origin_id: UUID | None = None
        async with self._database.engine.connect() as connection:
            queue = await find_queue(connection, project_id, request.queue)
            if request.origin_queue:
                origin_id = (await find_queue(connection, project_id, request.origin_queue))["id"]
        return Choice(project_id, queue["id"], request.job_type, origin_id)

    async def _count(self, choice: Choice, most: int | None) -> int:
        found = 0
        async for rows in self._chosen(choice):
            found += len(rows)
            if most is not None and found >= most:
                return most
        return found

    async def _move(self, choice: Choice, most: int | None, jobs_per_second: int | None) -> int:
        begins_at = await queries.read_clock(self._database.hot)
        moved = 0
        async for rows in self._chosen(choice):
            for batch in batches(rows, self._batch):
                left = len(batch) if most is None else most - moved
                if left <= 0:
                    return moved
                ids = [row["id"] for row in batch[:left]]
                async with self._database.hot.acquire() as connection, connection.transaction():
                    arrived = await queries.redrive_jobs(
                        connection,
                        choice.project_id,
                        choice.queue_id,
                        ids,
                        moved,
                        begins_at,
                        jobs_per_second,
                    )
                    await _record(connection, choice, arrived)
                moved += sum(row["n"] for row in arrived)
                self._wake(arrived)
        return moved

    async def _chosen(self, choice: Choice) -> AsyncIterator[list[Record]]:
        """The jobs to take back, page by page: those whose origin queue is there."""
        pool = self._database.hot
        read = partial(
            queries.list_unfinished_jobs,
            pool,
            choice.project_id,
            choice.queue_id,
            await queries.read_clock(pool),
            limit=self._page,
        )
        async for page in pages(read, self._page):
            rows = [row for row in page if choice.takes(row)]
            origins = {row["origin_queue_id"] for row in rows}
            live = await queries.find_live_queues(pool, choice.project_id, sorted(origins))
            yield [row for row in rows if row["origin_queue_id"] in live]

    def _wake(self, arrived: Sequence[Record]) -> None:
        ready = {str(row["queue_id"]) for row in arrived if row["status"] == JobStatus.PENDING}
        if ready:
            self._notifier.notify(WORK_READY, *ready)


async def _record(connection: Executor, choice: Choice, arrived: Sequence[Record]) -> None:
    jobs = sum(row["n"] for row in arrived)
    if jobs:
        await append_audit_entry(
            connection,
            "RedriveJobs",
            f"queues/{choice.queue_id}",
            project_id=choice.project_id,
            detail={"redriven_jobs": jobs},
        )
