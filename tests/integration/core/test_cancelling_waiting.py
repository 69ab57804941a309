"""Cancelling jobs that wait."""

from tests.support.endings import give_back, leased_jobs, row_of
from tests.support.leases import miscounts, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue

from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7
from taskforge_core.queries import cancel_waiting_jobs
from taskforge_core.statuses import JobStatus


async def test_waiting_jobs_are_cancelled_and_running_ones_are_not(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "mixed")
    [pending] = await insert_jobs(database.hot, queue_id)
    [scheduled] = await insert_jobs(database.hot, queue_id, JobStatus.SCHEDULED)
    [running] = await insert_jobs(database.hot, queue_id, JobStatus.PROCESSING)
    [finished] = await insert_jobs(database.hot, queue_id, JobStatus.FAILED)
    ids = [pending, scheduled, running, finished]
    named = sorted(map(str, [*ids, uuid7()]))
    rows = await cancel_waiting_jobs(database.hot, DEFAULT_PROJECT_ID, named)
    assert {(row["id"], row["queue_id"]) for row in rows} == {
        (str(pending), queue_id),
        (str(scheduled), queue_id),
    }
    assert await statuses(database.hot, ids) == [
        JobStatus.CANCELLED,
        JobStatus.CANCELLED,
        JobStatus.PROCESSING,
        JobStatus.FAILED,
    ]
    assert await miscounts(database.hot) == []


async def test_another_project_cannot_cancel_a_waiting_job(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "mine")
    [job_id] = await insert_jobs(database.hot, queue_id)
    other = await insert_project(database.hot)
    assert await cancel_waiting_jobs(database.hot, other, [str(job_id)]) == []
    assert await statuses(database.hot, [job_id]) == [JobStatus.PENDING]


async def test_a_cancelled_job_still_answers_a_settle_that_was_answered_before(
    database: Database,
) -> None:
    [key, _] = await leased_jobs(database)
    await give_back(database, [key])
    waiting = await row_of(database, "jobs", key)
    await cancel_waiting_jobs(database.hot, DEFAULT_PROJECT_ID, [key[0]])
    history = await row_of(database, "job_history", key)
    assert (history["last_seq"], history["last_status"]) == (key[1], JobStatus.PENDING)
    kept = history.keys() & waiting.keys() - {"status", "updated_at"}
    assert {name: history[name] for name in kept} == {name: waiting[name] for name in kept}
