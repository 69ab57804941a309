"""Ends leases by the statements themselves, and looks at what that did."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from tests.support.leases import LeaseKey, insert_session, lease
from tests.support.rows import insert_jobs, insert_queue

from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7
from taskforge_core.queries import finish_jobs, lock_leases, return_jobs
from taskforge_core.statuses import JobStatus

AT_ONCE = timedelta(0)


async def leased_jobs(
    database: Database, count: int = 2, *, project_id: UUID = DEFAULT_PROJECT_ID
) -> list[LeaseKey]:
    """Jobs of a new queue, leased to a new session."""
    queue_id = await insert_queue(database.hot, f"queue {uuid7()}", project_id=project_id)
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * count, project_id=project_id)
    session_id = await insert_session(database.hot, project_id=project_id)
    return await lease(database.hot, ids, session_id, project_id=project_id)


async def finish(database: Database, keys: Sequence[LeaseKey], **options: Any) -> list[LeaseKey]:
    rows = await finish_jobs(
        database.hot,
        options.get("project_id", DEFAULT_PROJECT_ID),
        [key[0] for key in keys],
        [key[1] for key in keys],
        [JobStatus.SUCCEEDED] * len(keys),
        [options.get("result")] * len(keys),
        [options.get("failure")] * len(keys),
        answered=options.get("answered", True),
    )
    return [keys[place - 1] for row in rows for place in row["places"]]


async def give_back(database: Database, keys: Sequence[LeaseKey], **options: Any) -> list[LeaseKey]:
    rows = await return_jobs(
        database.hot,
        options.get("project_id", DEFAULT_PROJECT_ID),
        [key[0] for key in keys],
        [key[1] for key in keys],
        [options.get("delay", AT_ONCE)] * len(keys),
        [options.get("uses_attempt", True)] * len(keys),
        [options.get("undelivered", False)] * len(keys),
        [options.get("failure")] * len(keys),
        answered=options.get("answered", True),
    )
    return [(row["id"], row["lease_seq"]) for row in rows]


async def lock(database: Database, keys: Sequence[LeaseKey], **options: Any) -> list[LeaseKey]:
    rows = await lock_leases(
        database.hot,
        options.get("project_id", DEFAULT_PROJECT_ID),
        [key[0] for key in keys],
        [key[1] for key in keys],
    )
    return [(row["id"], row["lease_seq"]) for row in rows]


async def contents(database: Database) -> list[str]:
    """Everything that an ending could change, as text."""
    return [
        str(row)
        for table in ("jobs", "job_history", "queue_deltas")
        for row in await database.hot.fetch(f"SELECT * FROM {table} AS row ORDER BY row::text")
    ]


async def row_of(database: Database, table: str, key: LeaseKey) -> dict[str, Any]:
    row = await database.hot.fetchrow(f"SELECT * FROM {table} WHERE id = $1", UUID(key[0]))
    assert row is not None
    return dict(row)
