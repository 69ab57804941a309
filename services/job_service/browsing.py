"""Shows jobs: waiting, running and finished ones alike, read in one statement.

A job is in exactly one of `jobs` and `job_history`; reading both by one snapshot means that a job
that moves between them is neither missed nor shown twice.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    Text,
    cast,
    func,
    or_,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.dialects.postgresql import JSONB

from job_service.conversion import stored_job
from job_service.routing import Routes
from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.counting import read_counts
from taskforge_core.database import Database
from taskforge_core.errors import NotFound
from taskforge_core.paging import (
    MAX_PAGE_BYTES,
    coerce_page_size,
    decode_page_token,
    encode_page_token,
    filters_digest,
    page_length,
)
from taskforge_core.projects import Projects
from taskforge_core.tables import every_job, queue_counts, queue_deltas


class JobBrowser:
    """GetJob, ListJobs and GetJobStats."""

    def __init__(self, database: Database, projects: Projects, routes: Routes) -> None:
        self._database = database
        self._projects = projects
        self._routes = routes

    async def get(self, request: pb.GetJobRequest) -> job_pb2.Job:
        """Show one job.

        Raises:
            NotFound: The project has no such job (`JOB_NOT_FOUND`).
        """
        project_id = await self._projects.resolve(request.project_id)
        found = await self.find(project_id, UUID(request.job_id))
        if found is None:
            raise job_not_found(request.job_id)
        return found

    async def find(self, project_id: UUID, job_id: UUID) -> job_pb2.Job | None:
        """The job, if the project has it."""
        statement = select(every_job).where(
            every_job.c.project_id == project_id, every_job.c.id == job_id
        )
        async with self._database.engine.connect() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        return None if row is None else stored_job(row)

    async def list(self, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """List jobs, newest first.

        Raises:
            NotFound: The project has no such queue (`QUEUE_NOT_FOUND`).
            InvalidArgument: The page token is of another list (`INVALID_PAGE_TOKEN`).
        """
        project_ids = await self._projects.visible(request.project_id)
        filters = filters_digest(request)
        after = decode_page_token(request.page_token, "ListJobs", filters, datetime)
        queue_id = None
        if request.queue:
            queue_id = await self._routes.resolve(project_ids[0], request.queue)
        conditions = _conditions(request)
        if after is not None:
            conditions.append(tuple_(every_job.c.created_at, every_job.c.id) < after)
        page_size = coerce_page_size(request.page_size)
        # One more than asked for tells whether another page follows.
        statement = _page(project_ids, queue_id, conditions, page_size + 1)
        async with self._database.engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        jobs = [stored_job(row) for row in rows[:page_size]]
        # The statement has cut off by the documents; with all else they may still be too large.
        length = page_length(jobs, page_size)
        response = pb.ListJobsResponse(jobs=jobs[:length])
        if length and rows[0]["found"] > length:
            last = rows[length - 1]
            response.next_page_token = encode_page_token(
                "ListJobs", filters, last["created_at"], last["id"]
            )
        return response

    async def stats(self, request: pb.GetJobStatsRequest) -> pb.GetJobStatsResponse:
        """Count jobs by status, at a cost that does not depend on their number.

        Raises:
            NotFound: The project has no such queue (`QUEUE_NOT_FOUND`).
        """
        project_id = await self._projects.resolve(request.project_id)
        queue_id = None
        if request.queue:
            queue_id = await self._routes.resolve(project_id, request.queue)
        async with self._database.engine.connect() as connection:
            counts = await read_counts(connection, project_id, queue_id)
        return pb.GetJobStatsResponse(
            queue_id="" if queue_id is None else str(queue_id),
            total=counts.total,
            counts=queue_pb2.JobCounts(**asdict(counts)),
        )


def job_not_found(job_id: str) -> NotFound:
    """The error for a job that is not there, as far as the caller may see."""
    return NotFound("JOB_NOT_FOUND", f"there is no job {job_id}", metadata={"job": job_id})


def _conditions(request: pb.ListJobsRequest) -> list[ColumnElement[bool]]:
    """The request's filters."""
    job = every_job.c
    found: list[ColumnElement[bool]] = []
    if request.status:
        found.append(job.status == int(request.status))
    if request.job_type:
        found.append(job.job_type == request.job_type)
    if request.labels:
        wanted = orjson.dumps(dict(request.labels)).decode()
        found.append(job.labels.contains(cast(wanted, JSONB)))
    if request.HasField("scheduled_from"):
        found.append(job.scheduled_for >= request.scheduled_from.ToDatetime(tzinfo=UTC))
    if request.HasField("scheduled_to"):
        found.append(job.scheduled_for < request.scheduled_to.ToDatetime(tzinfo=UTC))
    if request.HasField("created_from"):
        found.append(job.created_at >= request.created_from.ToDatetime(tzinfo=UTC))
    if request.HasField("created_to"):
        found.append(job.created_at < request.created_to.ToDatetime(tzinfo=UTC))
    return found


def _page(
    project_ids: Sequence[UUID],
    queue_id: UUID | None,
    conditions: Sequence[ColumnElement[bool]],
    limit: int,
) -> Select[Any]:
    """The newest `limit` jobs, cut off where their documents grow too large.

    Each queue is read in the order of its listing index and the queues are merged, so the cost
    follows the page, not the number of jobs. `found` says on each row how many there were before
    the cut, so that no page of large jobs fills the memory and yet its end is known.
    """
    sources = _sources(project_ids, queue_id)
    of_queue = (
        select(every_job)
        .where(
            every_job.c.project_id == sources.c.project_id,
            every_job.c.queue_id == sources.c.queue_id,
            *conditions,
        )
        .order_by(every_job.c.created_at.desc(), every_job.c.id.desc())
        .limit(limit)
        .lateral()
    )
    newest = (of_queue.c.created_at.desc(), of_queue.c.id.desc())
    merged = (
        select(of_queue)
        .select_from(sources.join(of_queue, true()))
        .order_by(*newest)
        .limit(limit)
        .subquery()
    )
    order = (merged.c.created_at.desc(), merged.c.id.desc())
    # Everything that can be large. The rest of a thousand jobs fits between a page's limit and a
    # message's.
    size = merged.c.payload_bytes + sum(
        func.coalesce(func.octet_length(cast(merged.c[document], Text)), 0)
        for document in ("progress", "result", "attempts", "labels")
    )
    sized = select(
        merged,
        func.sum(size).over(order_by=order).label("page_bytes"),
        func.row_number().over(order_by=order).label("place"),
        func.count().over().label("found"),
    ).subquery()
    return (
        select(sized)
        .where(or_(sized.c.page_bytes <= MAX_PAGE_BYTES, sized.c.place == 1))
        .order_by(sized.c.created_at.desc(), sized.c.id.desc())
    )


def _sources(project_ids: Sequence[UUID], queue_id: UUID | None) -> CTE:
    """The queues that have jobs; deleted ones are counted while they have history."""
    return union(
        *(
            select(table.c.project_id, table.c.queue_id).where(
                table.c.project_id.in_(project_ids),
                true() if queue_id is None else table.c.queue_id == queue_id,
            )
            for table in (queue_counts, queue_deltas)
        )
    ).cte("sources")
