"""Jobs of dead-letter queues that tests put there past the services."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from tests.support.rows import insert_jobs

from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus


async def insert_dead_letters(
    database: Database,
    queue_id: UUID,
    origin_id: UUID,
    status: JobStatus = JobStatus.PENDING,
    *,
    priorities: Sequence[int] = (0,),
    created_at: datetime | None = None,
    project_id: UUID = DEFAULT_PROJECT_ID,
) -> list[UUID]:
    """Unfinished jobs of a queue that came from another one, one for each priority."""
    async with database.hot.acquire() as connection, connection.transaction():
        ids = await insert_jobs(
            connection,
            queue_id,
            status,
            priorities=priorities,
            created_at=created_at,
            project_id=project_id,
        )
        await connection.execute(
            "UPDATE taskforge.jobs SET origin_queue_id = $3, origin_job_id = gen_random_uuid(),"
            " origin_failed_at = created_at WHERE project_id = $1 AND id = ANY($2::uuid[])",
            project_id,
            ids,
            origin_id,
        )
    return ids
