"""The statements of this service that are better read as SQL: one a file, a function each.

The first ones run on the engine, those that change jobs on the hot pool.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from asyncpg import Record
from sqlalchemy import Interval, text
from sqlalchemy.ext.asyncio import AsyncConnection

from taskforge_core.queries import Executor, Statements

_statements = Statements(__name__)
_oldest_ready = text(_statements["oldest_ready"]).columns(age=Interval)
_lock_dead_letters = text(_statements["lock_dead_letters"])
_leads_to = text(_statements["leads_to"])
_find_dead_letter_user = text(_statements["find_dead_letter_user"])

_DEAD_LETTERS_SEED = 0x6465_6164
"""Keeps the locks on projects' dead-letter queues apart from other advisory locks: `dead`."""


# -- Administration and browsing -----------------------------------------------------------------


async def oldest_ready(
    connection: AsyncConnection, project_id: UUID, queue_id: UUID
) -> timedelta | None:
    """See `oldest_ready.sql`."""
    parameters = {"project_id": project_id, "queue_id": queue_id}
    age: timedelta | None = await connection.scalar(_oldest_ready, parameters)
    return age


async def lock_dead_letters(connection: AsyncConnection, project_id: UUID) -> None:
    """See `lock_dead_letters.sql`."""
    await connection.execute(
        _lock_dead_letters, {"project_id": project_id, "seed": _DEAD_LETTERS_SEED}
    )


async def leads_to(
    connection: AsyncConnection, project_id: UUID, first_id: UUID, last_id: UUID
) -> bool:
    """See `leads_to.sql`."""
    parameters = {"project_id": project_id, "first": first_id, "last": last_id}
    return bool(await connection.scalar(_leads_to, parameters))


async def find_dead_letter_user(
    connection: AsyncConnection, project_id: UUID, queue_id: UUID
) -> str | None:
    """See `find_dead_letter_user.sql`."""
    parameters = {"project_id": project_id, "queue_id": queue_id}
    name: str | None = await connection.scalar(_find_dead_letter_user, parameters)
    return name


# -- Many jobs at once ---------------------------------------------------------------------------


async def read_clock(executor: Executor) -> datetime:
    """See `read_clock.sql`."""
    (row,) = await executor.fetch(_statements["read_clock"])
    now: datetime = row["now"]
    return now


async def list_unfinished_jobs(
    executor: Executor,
    project_id: UUID,
    queue_id: UUID,
    latest: datetime,
    after_created_at: datetime,
    after_id: UUID,
    limit: int,
) -> list[Record]:
    """See `list_unfinished_jobs.sql`.

    Returns `id, created_at, status, payload_bytes, job_type, origin_queue_id`.
    """
    return await executor.fetch(
        _statements["list_unfinished_jobs"],
        project_id,
        queue_id,
        latest,
        after_created_at,
        after_id,
        limit,
    )


async def lock_waiting_jobs(
    executor: Executor,
    project_id: UUID,
    queue_id: UUID,
    ids: Sequence[UUID],
    statuses: Sequence[int],
) -> list[str]:
    """See `lock_waiting_jobs.sql`. Give `ids` ascending. Returns those that are locked."""
    rows = await executor.fetch(
        _statements["lock_waiting_jobs"], project_id, queue_id, ids, statuses
    )
    return [row["id"] for row in rows]


async def list_finished_jobs(
    executor: Executor,
    project_id: UUID,
    queue_id: UUID,
    after_created_at: datetime,
    after_id: UUID,
    limit: int,
) -> list[Record]:
    """See `list_finished_jobs.sql`. Returns `id, created_at, completed_at, status`."""
    return await executor.fetch(
        _statements["list_finished_jobs"], project_id, queue_id, after_created_at, after_id, limit
    )


async def delete_finished_jobs(
    executor: Executor, project_id: UUID, ids: Sequence[UUID], completed_at: Sequence[datetime]
) -> int:
    """See `delete_finished_jobs.sql`. Returns how many went."""
    (row,) = await executor.fetch(
        _statements["delete_finished_jobs"], project_id, ids, completed_at
    )
    return int(row["n"])


async def find_live_queues(
    executor: Executor, project_id: UUID, queue_ids: Sequence[UUID]
) -> set[UUID]:
    """See `find_live_queues.sql`."""
    rows = await executor.fetch(_statements["find_live_queues"], project_id, queue_ids)
    return {row["id"] for row in rows}


async def redrive_jobs(
    executor: Executor,
    project_id: UUID,
    queue_id: UUID,
    ids: Sequence[UUID],
    before: int,
    begins_at: datetime,
    jobs_per_second: int | None,
) -> list[Record]:
    """See `redrive_jobs.sql`. Returns `queue_id, status, n`: what came where, and how."""
    return await executor.fetch(
        _statements["redrive_jobs"],
        project_id,
        queue_id,
        ids,
        before,
        begins_at,
        jobs_per_second,
    )
