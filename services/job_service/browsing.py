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
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import (
    CTE,
    ColumnElement,
    FromClause,
    Select,
    String,
    Table,
    and_,
    cast,
    func,
    literal,
    null,
    select,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from job_service.conversion import stored_job
from job_service.routing import Routes
from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.counting import read_counts
from taskforge_core.database import Database
from taskforge_core.errors import NotFound, invalid_field
from taskforge_core.paging import (
    coerce_page_size,
    decode_page_token,
    encode_page_token,
    filters_digest,
)
from taskforge_core.projects import Projects
from taskforge_core.statuses import FINISHED, UNFINISHED
from taskforge_core.tables import job_history, jobs, queue_counts, queue_deltas

MAX_PAGE_BYTES = 2 * 1024 * 1024
"""A page ends before its jobs' documents pass this size together, but holds one job at least."""

_ONLY_HOT = ("timeout_at",)
_ONLY_COLD = ("completed_at", "result")
_SHARED = tuple(column.name for column in jobs.c if column.name in job_history.c)
_DOCUMENTS = ("payload", "result", "progress", "attempts", "labels")


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
        sides = [
            _side(table).where(table.c.project_id == project_id, table.c.id == job_id)
            for table in (jobs, job_history)
        ]
        async with self._database.engine.connect() as connection:
            row = (await connection.execute(union_all(*sides))).mappings().one_or_none()
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
        page_size = coerce_page_size(request.page_size)
        statement = _page(project_ids, queue_id, _Conditions(request), after, page_size + 1)
        async with self._database.engine.connect() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        # The row behind the page was read only to know that there is one.
        shown = rows[:page_size]
        response = pb.ListJobsResponse(jobs=[stored_job(row) for row in shown])
        if len(shown) < len(rows) or (rows and rows[-1]["has_more"]):
            last = shown[-1]
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


def _side(table: Table) -> Select[Any]:
    """The columns of one of the two tables, with NULL for those that only the other one has."""
    columns: list[ColumnElement[Any]] = [table.c[name] for name in _SHARED]
    for name in (*_ONLY_HOT, *_ONLY_COLD):
        other = job_history if name in job_history.c else jobs
        own = table.c[name] if name in table.c else cast(null(), other.c[name].type)
        columns.append(own.label(name))
    return select(*columns)


class _Conditions:
    """The filters of a list, for either table."""

    def __init__(self, request: pb.ListJobsRequest) -> None:
        self._request = request
        self._moments = {
            name: _moment(getattr(request, name), name)
            for name in ("scheduled_from", "scheduled_to", "created_from", "created_to")
            if request.HasField(name)
        }

    @property
    def tables(self) -> tuple[Table, ...]:
        """Where jobs of the wanted status can be."""
        status = int(self._request.status)
        if status in UNFINISHED:
            return (jobs,)
        if status in FINISHED:
            return (job_history,)
        return (jobs, job_history)

    def of(self, table: Table) -> list[ColumnElement[bool]]:
        """The conditions on the columns of a table."""
        request = self._request
        found: list[ColumnElement[bool]] = []
        if request.status:
            found.append(table.c.status == request.status)
        if request.job_type:
            found.append(table.c.job_type == request.job_type)
        if request.labels:
            wanted = orjson.dumps(dict(request.labels)).decode()
            found.append(table.c.labels.contains(cast(literal(wanted, String), JSONB)))
        columns = {"scheduled": table.c.scheduled_for, "created": table.c.created_at}
        for name, moment in self._moments.items():
            noun, _, bound = name.partition("_")
            column = columns[noun]
            found.append(column >= moment if bound == "from" else column < moment)
        return found


def _moment(message: Timestamp, field: str) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except ValueError:
        raise invalid_field(field, "is not a valid time") from None


def _page(
    project_ids: Sequence[UUID],
    queue_id: UUID | None,
    conditions: _Conditions,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> Select[Any]:
    """The newest `limit` jobs behind `after`, cut off where their documents grow too large.

    Each queue is read in the order of its listing index and the queues are merged, so that the
    cost follows the page, not the number of jobs.
    """
    sources = _sources(project_ids, queue_id)
    newest = []
    for table in conditions.tables:
        side = (
            _side(table)
            .where(
                table.c.project_id == sources.c.project_id,
                table.c.queue_id == sources.c.queue_id,
                *conditions.of(table),
            )
            .order_by(table.c.created_at.desc(), table.c.id.desc())
            .limit(limit)
        )
        if after is not None:
            place = tuple_(table.c.created_at, table.c.id)
            side = side.where(place < tuple_(literal(after[0]), literal(after[1])))
        each = side.lateral()
        newest.append(select(each).select_from(sources.join(each, true())))
    merged = union_all(*newest).subquery()
    page = (
        select(merged).order_by(merged.c.created_at.desc(), merged.c.id.desc()).limit(limit)
    ).subquery()
    return _bounded(page)


def _sources(project_ids: Sequence[UUID], queue_id: UUID | None) -> CTE:
    """The queues to read. Deleted ones are counted as long as they have history."""
    if queue_id is not None:
        return select(
            literal(project_ids[0]).label("project_id"), literal(queue_id).label("queue_id")
        ).cte("sources")
    return union(
        *(
            select(table.c.project_id, table.c.queue_id).where(table.c.project_id.in_(project_ids))
            for table in (queue_counts, queue_deltas)
        )
    ).cte("sources")


def _bounded(page: FromClause) -> Select[Any]:
    """Leave out what lies behind the size limit, so that no page of large jobs fills the memory.

    `has_more` says on each row whether something was left out.
    """
    size = sum(
        (func.coalesce(func.octet_length(cast(page.c[name], String)), 0) for name in _DOCUMENTS),
        start=literal(0),
    )
    order = (page.c.created_at.desc(), page.c.id.desc())
    before = func.sum(size).over(order_by=order) - size
    sized = select(page, before.label("bytes_before")).subquery()
    columns = [column for column in sized.c if column.name != "bytes_before"]
    fits = sized.c.bytes_before < MAX_PAGE_BYTES
    left_out = select(func.bool_or(~fits)).select_from(sized).scalar_subquery()
    return (
        select(*columns, left_out.label("has_more"))
        .where(and_(fits))
        .order_by(sized.c.created_at.desc(), sized.c.id.desc())
    )
