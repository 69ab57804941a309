"""A million jobs at once, past the services: straight into the tables, with their counts."""

import asyncio
from uuid import UUID

from taskforge_cli.bench.orders import JOB_TYPE
from taskforge_cli.bench.producing import payload_of
from taskforge_sdk import Queue

_WAITING = """
INSERT INTO taskforge.jobs (
    project_id, id, queue_id, created_at, updated_at, max_attempts, payload_bytes, status, priority,
    job_type, payload)
SELECT $1, uuidv7(), $2, clock_timestamp(), clock_timestamp(), 3, $3, 1, 0, $4, $5
FROM generate_series(1, $6::integer)
"""

_FINISHED = """
INSERT INTO taskforge.job_history (
    project_id, id, queue_id, created_at, updated_at, completed_at, started_at, last_seq,
    last_status, attempt_count, max_attempts, payload_bytes, status, priority, job_type, worker_id,
    payload, attempts)
SELECT $1, uuidv7(), $2, clock_timestamp(), clock_timestamp(), clock_timestamp(),
    clock_timestamp(), nextval('taskforge.lease_seq'), 4, 1, 3, $3, 4, 0, $4, 'bench', $5, '[]'
FROM generate_series(1, $6::integer)
"""

# The delta of the counts goes in with the jobs, as the services do it.
_COUNT = (
    "INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n) VALUES ($1, $2, $3, $4)"
)

_PENDING, _SUCCEEDED = 1, 4


def fill_waiting(dsn: str, queue: Queue, jobs: int, payload_bytes: int) -> None:
    """Let so many jobs wait in the queue."""
    asyncio.run(_fill(dsn, _WAITING, _PENDING, queue, jobs, payload_bytes))


def fill_finished(dsn: str, queue: Queue, jobs: int, payload_bytes: int) -> None:
    """Put so many jobs of the queue into the history, as if they had succeeded just now."""
    asyncio.run(_fill(dsn, _FINISHED, _SUCCEEDED, queue, jobs, payload_bytes))


async def _fill(
    dsn: str, insert: str, status: int, queue: Queue, jobs: int, payload_bytes: int
) -> None:
    import asyncpg

    project_id, queue_id = UUID(queue.project_id), UUID(queue.id)
    payload = payload_of(payload_bytes)
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(
                insert, project_id, queue_id, payload_bytes, JOB_TYPE, payload, jobs
            )
            await connection.execute(_COUNT, project_id, queue_id, status, jobs)
        # What autovacuum and the checkpointer would do some time later, amid the measurement.
        await connection.execute("VACUUM (ANALYZE) taskforge.jobs, taskforge.job_history")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
