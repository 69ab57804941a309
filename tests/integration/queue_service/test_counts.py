"""Counts are exact, whatever is folded meanwhile."""

import asyncio
import random
from dataclasses import asdict
from uuid import UUID

from tests.support.queue_replicas import Replica
from tests.support.rows import insert_jobs, insert_project, insert_queue

from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.counting import JobCounts, read_counts
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

# What the scheduler does all the time: move deltas into the folded counts, in one statement.
FOLD = """
WITH taken AS (DELETE FROM taskforge.queue_deltas RETURNING project_id, queue_id, status, n)
INSERT INTO taskforge.queue_counts AS folded (project_id, queue_id, status, n)
SELECT project_id, queue_id, status, sum(n) FROM taken GROUP BY project_id, queue_id, status
ON CONFLICT (project_id, queue_id, status) DO UPDATE SET n = folded.n + excluded.n
"""


async def counted_one_by_one(database: Database, queue_id: UUID | None) -> JobCounts:
    rows = await database.hot.fetch(
        "SELECT status, count(*) AS n FROM ("
        "   SELECT project_id, queue_id, status FROM taskforge.jobs"
        "   UNION ALL SELECT project_id, queue_id, status FROM taskforge.job_history) AS job"
        " WHERE project_id = $1 AND ($2::uuid IS NULL OR queue_id = $2) GROUP BY status",
        DEFAULT_PROJECT_ID,
        queue_id,
    )
    return JobCounts(**{JobStatus(row["status"]).name.lower(): row["n"] for row in rows})


async def read(database: Database, queue_id: UUID | None) -> JobCounts:
    async with database.engine.connect() as connection:
        return await read_counts(connection, DEFAULT_PROJECT_ID, queue_id)


async def test_stats_equal_the_jobs_counted_one_by_one(
    replica: Replica, database: Database
) -> None:
    chance = random.Random(20261124)
    queue_ids = [await insert_queue(database.hot, name) for name in ("emails", "other", "empty")]
    foreign = await insert_project(database.hot)
    foreign_queue = await insert_queue(database.hot, "emails", project_id=foreign)
    for _ in range(60):
        await insert_jobs(
            database.hot,
            chance.choice(queue_ids[:2]),
            chance.choice(list(JobStatus)),
            priorities=[chance.randrange(10) for _ in range(chance.randrange(1, 20))],
        )
        await insert_jobs(
            database.hot, foreign_queue, chance.choice(list(JobStatus)), project_id=foreign
        )
        if chance.random() < 0.2:
            await database.hot.execute(FOLD)
    for queue_id in queue_ids:
        answer = await replica.browser.stats(pb.GetQueueStatsRequest(queue=str(queue_id)))
        expected = await counted_one_by_one(database, queue_id)
        got = {name: getattr(answer.counts, name) for name in asdict(expected)}
        assert got == asdict(expected)
    whole = await read(database, None)
    assert whole == await counted_one_by_one(database, None)
    assert whole.total > 0
    assert await read(database, queue_ids[2]) == JobCounts()


async def test_no_reader_sees_a_delta_twice_or_not_at_all_while_it_is_folded(
    replica: Replica, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 100)
    folded = asyncio.Event()

    async def fold_again_and_again() -> None:
        for _ in range(100):
            # The same hundred jobs, moved to and fro: their number never changes.
            await database.hot.execute(
                "WITH one_less AS (UPDATE taskforge.queue_counts SET n = n - 1 RETURNING *)"
                " INSERT INTO taskforge.queue_deltas"
                " SELECT project_id, queue_id, status, 1 FROM one_less"
            )
            await database.hot.execute(FOLD)
        folded.set()

    async def read_again_and_again() -> int:
        readings = 0
        while not folded.is_set():
            answer = await replica.browser.stats(pb.GetQueueStatsRequest(queue="emails"))
            assert answer.counts.pending == 100
            readings += 1
        return readings

    _, readings = await asyncio.gather(fold_again_and_again(), read_again_and_again())
    assert readings > 1


async def test_a_count_that_was_taken_back_to_zero_is_zero(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    for n in (5, -2, -3):
        await database.hot.execute(
            "INSERT INTO taskforge.queue_deltas VALUES ($1, $2, 1, $3)",
            DEFAULT_PROJECT_ID,
            queue_id,
            n,
        )
        await database.hot.execute(FOLD)
    assert await read(database, queue_id) == JobCounts()
