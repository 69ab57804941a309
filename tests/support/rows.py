"""Rows that tests put into the database past the services, with the deltas of their counts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from taskforge_core.ids import DEFAULT_ORGANISATION_ID, DEFAULT_PROJECT_ID, uuid7
from taskforge_core.statuses import UNFINISHED, JobStatus


class Connection(Protocol):
    """An asyncpg connection or pool."""

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement."""


async def insert_project(connection: Connection, name: str = "other") -> UUID:
    """A project beside the default one."""
    project_id = uuid7()
    await connection.execute(
        "INSERT INTO taskforge.projects (id, organisation_id, name) VALUES ($1, $2, $3)",
        project_id,
        DEFAULT_ORGANISATION_ID,
        name,
    )
    return project_id


async def insert_queue(
    connection: Connection, name: str, *, project_id: UUID = DEFAULT_PROJECT_ID, **columns: Any
) -> UUID:
    """A queue; open and without settings but for the `columns` that are given."""
    queue_id = uuid7()
    columns = {"project_id": project_id, "id": queue_id, "name": name} | columns
    places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
    await connection.execute(
        f"INSERT INTO taskforge.queues ({', '.join(columns)}) VALUES ({places})",
        *columns.values(),
    )
    return queue_id


async def insert_jobs(
    connection: Connection,
    queue_id: UUID,
    status: JobStatus = JobStatus.PENDING,
    *,
    priorities: Sequence[int] = (0,),
    created_at: datetime | None = None,
    project_id: UUID = DEFAULT_PROJECT_ID,
    job_type: str = "test",
    payload_bytes: int = 2,
    counted: bool = True,
) -> list[UUID]:
    """Jobs of one queue and status, one for each priority, and the delta of their count.

    Args:
        connection: Where to insert them; give a connection in a transaction for one commit.
        queue_id: Their queue.
        status: Where they stand; those that are finished go into the history.
        priorities: One a job.
        created_at: Default: now, by the database's clock.
        project_id: Their project.
        job_type: Their type.
        payload_bytes: How large their payload counts; it is `{}` all the same.
        counted: Whether the delta of the counts is written as well.
    """
    ids = [uuid7() for _ in priorities]
    await connection.execute(
        _UNFINISHED if status in UNFINISHED else _FINISHED,
        ids,
        list(priorities),
        project_id,
        queue_id,
        int(status),
        created_at,
        job_type,
        payload_bytes,
    )
    if counted:
        await connection.execute(
            "INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)"
            " VALUES ($1, $2, $3, $4)",
            project_id,
            queue_id,
            int(status),
            len(ids),
        )
    return ids


_UNFINISHED = """
INSERT INTO taskforge.jobs (
    project_id, id, queue_id, status, priority, created_at, updated_at, scheduled_for,
    session_id, lease_seq, attempt_count, max_attempts, payload_bytes, job_type, payload)
SELECT $3, job.id, $4, $5::smallint, job.priority, coalesce($6::timestamptz, clock_timestamp()),
       clock_timestamp(),
       CASE WHEN $5::smallint = 2 THEN clock_timestamp() + interval '1 hour' END,
       CASE WHEN $5::smallint = 3 THEN gen_random_uuid() END,
       CASE WHEN $5::smallint = 3 THEN nextval('taskforge.lease_seq') END,
       CASE WHEN $5::smallint = 3 THEN 1 ELSE 0 END, 3, $8::integer, $7::text, '{}'
FROM unnest($1::uuid[], $2::smallint[]) AS job (id, priority)
"""

_FINISHED = """
INSERT INTO taskforge.job_history (
    project_id, id, queue_id, status, priority, created_at, updated_at, completed_at,
    attempt_count, max_attempts, payload_bytes, job_type, payload, attempts)
SELECT $3, job.id, $4, $5::smallint, job.priority, coalesce($6::timestamptz, clock_timestamp()),
       clock_timestamp(), clock_timestamp(), 1, 3, $8::integer, $7::text, '{}', '[]'
FROM unnest($1::uuid[], $2::smallint[]) AS job (id, priority)
"""
