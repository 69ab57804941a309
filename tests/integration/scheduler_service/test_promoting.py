"""Scheduled jobs become ready when they are due, each once."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from tests.integration.scheduler_service.conftest import RecordingNotifier
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.leases import miscounts, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue

from scheduler_service.promoting import Promoter
from scheduler_service.queries import promote_due_jobs
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus

PENDING, SCHEDULED = JobStatus.PENDING, JobStatus.SCHEDULED


async def scheduled_jobs(
    database: Database,
    name: str,
    *due_in_seconds: float,
    project_id: UUID = DEFAULT_PROJECT_ID,
) -> tuple[UUID, list[UUID]]:
    """A queue and its scheduled jobs, one for each number; those below zero are due."""
    queue_id = await insert_queue(database.hot, name, project_id=project_id)
    ids = await insert_jobs(
        database.hot,
        queue_id,
        SCHEDULED,
        priorities=[0] * len(due_in_seconds),
        project_id=project_id,
    )
    await database.hot.execute(
        "UPDATE jobs SET scheduled_for = clock_timestamp() + due.wait"
        " FROM unnest($1::uuid[], $2::interval[]) AS due (id, wait) WHERE jobs.id = due.id",
        ids,
        [timedelta(seconds=seconds) for seconds in due_in_seconds],
    )
    return queue_id, ids


async def test_what_is_due_becomes_ready_and_wakes_its_queue(
    database: Database, notifier: RecordingNotifier
) -> None:
    queue_id, ids = await scheduled_jobs(database, "emails", -1, 3600, -0.001)
    await scheduled_jobs(database, "later", 3600)
    await Promoter(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids) == [PENDING, SCHEDULED, PENDING]
    assert notifier.told == {"ready": {str(queue_id)}}
    assert await miscounts(database.hot) == []


async def test_nothing_due_wakes_nobody(database: Database, notifier: RecordingNotifier) -> None:
    await scheduled_jobs(database, "later", 3600)
    await Promoter(database.hot, notifier).run_once()
    assert notifier.told == {}


async def test_the_queues_of_all_projects_are_promoted(
    database: Database, notifier: RecordingNotifier
) -> None:
    other = await insert_project(database.hot)
    first, _ = await scheduled_jobs(database, "emails", -1)
    second, _ = await scheduled_jobs(database, "emails", -1, -1, project_id=other)
    await Promoter(database.hot, notifier).run_once()
    assert notifier.told == {"ready": {str(first), str(second)}}
    rows = await database.hot.fetch(
        "SELECT project_id, queue_id, n FROM queue_deltas WHERE status = 1"
    )
    assert {tuple(row) for row in rows} == {(DEFAULT_PROJECT_ID, first, 1), (other, second, 2)}


async def test_a_batch_takes_the_longest_due_first(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, ids = await scheduled_jobs(database, "emails", -1, -3, -2)
    assert await Promoter(database.hot, notifier, batch_size=2)._promote_batch()
    assert await statuses(database.hot, ids) == [SCHEDULED, PENDING, PENDING]


async def test_a_pass_with_more_due_than_a_batch_promotes_all_of_it(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, ids = await scheduled_jobs(database, "emails", *range(-30, 0))
    await Promoter(database.hot, notifier, batch_size=2).run_once()
    assert await statuses(database.hot, ids) == [PENDING] * 30
    assert await miscounts(database.hot) == []


async def test_a_job_that_another_transaction_holds_is_left_for_the_next_pass(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, (held, free) = await scheduled_jobs(database, "emails", -2, -1)
    promoter = Promoter(database.hot, notifier)
    async with database.hot.acquire() as holder, holder.transaction():
        await holder.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", held)
        await promoter.run_once()
        assert await statuses(database.hot, [held, free]) == [SCHEDULED, PENDING]
    await promoter.run_once()
    assert await statuses(database.hot, [held, free]) == [PENDING, PENDING]
    assert await miscounts(database.hot) == []


async def test_a_job_that_was_cancelled_meanwhile_stays_cancelled(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, [job_id] = await scheduled_jobs(database, "emails", -1)
    async with database.hot.acquire() as holder, holder.transaction():
        await holder.execute("DELETE FROM jobs WHERE id = $1", job_id)
        await Promoter(database.hot, notifier).run_once()
    assert await database.hot.fetchval("SELECT count(*) FROM jobs") == 0
    assert notifier.told == {}


async def test_two_schedulers_at_once_promote_each_job_once(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, ids = await scheduled_jobs(database, "emails", *[-1.0] * 2000)
    promoters = [Promoter(database.hot, notifier, batch_size=50) for _ in range(2)]
    # Each may see the other's locks on all that is left, and stop: a last pass takes what remains.
    await asyncio.gather(*(promoter.run_once() for promoter in promoters))
    await promoters[0].run_once()
    assert set(await statuses(database.hot, ids)) == {PENDING}
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_promoting_reads_what_is_due_and_nothing_else(
    database: Database, mode: PlanMode
) -> None:
    queue_id, _ = await scheduled_jobs(database, "emails", *[-1.0] * 10)
    await insert_jobs(database.hot, queue_id, SCHEDULED, priorities=[0] * 20_000)
    await database.hot.execute("ANALYZE taskforge.jobs")
    async with Explainer(database.hot, mode) as explainer:
        await promote_due_jobs(explainer, 5000)
        assert explainer.indexes == {"jobs_due"}
        assert explainer.scanned_tables == set()
        [due] = [node for node in explainer.plan if node.get("Index Name") == "jobs_due"]
        assert "scheduled_for" in due["Index Cond"]
        assert due["Actual Rows"] == 10
