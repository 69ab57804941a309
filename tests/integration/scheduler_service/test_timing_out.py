"""Attempts that take longer than they may end as TIMED_OUT."""

import asyncio
import json
from datetime import timedelta
from uuid import UUID

import pytest
from tests.integration.scheduler_service.conftest import RecordingNotifier
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.leases import LeaseKey, insert_session, lease, miscounts, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue

from scheduler_service.queries import lock_overdue_leases
from scheduler_service.timing_out import TimeoutEnforcer
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.retrying import Ending, Succeeded
from taskforge_core.statuses import AttemptOutcome, JobStatus

OVERDUE = timedelta(seconds=-1)
IN_TIME = timedelta(hours=1)


async def running_jobs(
    database: Database,
    count: int = 1,
    *,
    times_out_in: timedelta | None = OVERDUE,
    project_id: UUID = DEFAULT_PROJECT_ID,
    name: str = "emails",
) -> tuple[UUID, UUID, list[LeaseKey]]:
    """A queue, the session that holds its jobs, and their leases."""
    queue_id = await insert_queue(database.hot, name, project_id=project_id)
    ids = await insert_jobs(database.hot, queue_id, priorities=[0] * count, project_id=project_id)
    session_id = await insert_session(database.hot, project_id=project_id)
    keys = await lease(
        database.hot, ids, session_id, project_id=project_id, times_out_in=times_out_in
    )
    return queue_id, session_id, keys


def ids_of(keys: list[LeaseKey]) -> list[UUID]:
    return [UUID(job_id) for job_id, _ in keys]


async def test_an_overdue_attempt_ends_and_its_holder_is_told(
    database: Database, notifier: RecordingNotifier
) -> None:
    queue_id, session_id, keys = await running_jobs(database)
    assert await TimeoutEnforcer(database.hot, notifier).run_once() is False
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.SCHEDULED]
    attempts = json.loads(await database.hot.fetchval("SELECT attempts FROM jobs"))
    assert [attempt["outcome"] for attempt in attempts] == [AttemptOutcome.TIMED_OUT]
    # The job waits for its next attempt, but a slot of the queue is free.
    assert notifier.told == {"session": {str(session_id)}, "ready": {str(queue_id)}}
    assert await miscounts(database.hot) == []


async def test_without_a_retry_delay_the_job_is_ready_at_once_and_wakes_its_queue(
    database: Database, notifier: RecordingNotifier
) -> None:
    queue_id, session_id, keys = await running_jobs(database)
    await database.hot.execute("UPDATE queues SET retry_delay = interval '0'")
    await TimeoutEnforcer(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.PENDING]
    assert notifier.told == {"session": {str(session_id)}, "ready": {str(queue_id)}}


async def test_the_last_attempt_fails_the_job(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, _, keys = await running_jobs(database)
    await database.hot.execute("UPDATE jobs SET attempt_count = max_attempts")
    await TimeoutEnforcer(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.FAILED]


async def test_a_cancelled_job_that_times_out_ends_cancelled(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, _, keys = await running_jobs(database)
    await database.hot.execute("UPDATE jobs SET cancel_requested_at = clock_timestamp()")
    await TimeoutEnforcer(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.CANCELLED]


@pytest.mark.parametrize("times_out_in", [IN_TIME, None])
async def test_an_attempt_that_has_time_left_goes_on(
    database: Database, notifier: RecordingNotifier, times_out_in: timedelta | None
) -> None:
    _, _, keys = await running_jobs(database, times_out_in=times_out_in)
    await TimeoutEnforcer(database.hot, notifier).run_once()
    assert await statuses(database.hot, ids_of(keys)) == [JobStatus.PROCESSING]
    assert notifier.told == {}


async def test_all_projects_are_served_in_one_pass(
    database: Database, notifier: RecordingNotifier
) -> None:
    other = await insert_project(database.hot)
    first_queue, first_session, first = await running_jobs(database, 2)
    second_queue, second_session, second = await running_jobs(database, 3, project_id=other)
    await TimeoutEnforcer(database.hot, notifier).run_once()
    assert set(await statuses(database.hot, ids_of(first + second))) == {JobStatus.SCHEDULED}
    assert notifier.told == {
        "session": {str(first_session), str(second_session)},
        "ready": {str(first_queue), str(second_queue)},
    }
    assert await miscounts(database.hot) == []


async def test_a_pass_takes_one_batch_and_says_that_more_may_wait(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, _, keys = await running_jobs(database, 5)
    enforcer = TimeoutEnforcer(database.hot, notifier, batch_size=3)
    assert await enforcer.run_once() is True
    assert await enforcer.run_once() is False
    assert set(await statuses(database.hot, ids_of(keys))) == {JobStatus.SCHEDULED}


@pytest.mark.parametrize("settle_commits", [True, False])
async def test_a_settle_that_came_first_wins_if_it_commits(
    database: Database, notifier: RecordingNotifier, settle_commits: bool
) -> None:
    _, _, keys = await running_jobs(database, 2)
    settled, overdue = keys
    enforcer = TimeoutEnforcer(database.hot, notifier)
    async with database.hot.acquire() as settling:
        transaction = settling.transaction()
        await transaction.start()
        endings: dict[LeaseKey, Ending] = {settled: Succeeded()}
        assert await end_leases(settling, DEFAULT_PROJECT_ID, endings, answered=True)
        await enforcer.run_once()
        # The pass neither waited for the settle nor left out the others.
        assert await statuses(database.hot, ids_of([overdue])) == [JobStatus.SCHEDULED]
        if settle_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    await enforcer.run_once()
    expected = JobStatus.SUCCEEDED if settle_commits else JobStatus.SCHEDULED
    assert await statuses(database.hot, ids_of([settled])) == [expected]
    assert await miscounts(database.hot) == []


async def test_a_settle_that_comes_after_finds_its_lease_lost(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, _, [key] = await running_jobs(database)
    await TimeoutEnforcer(database.hot, notifier).run_once()
    endings: dict[LeaseKey, Ending] = {key: Succeeded()}
    assert await end_leases(database.hot, DEFAULT_PROJECT_ID, endings, answered=True) == []


async def test_two_schedulers_at_once_end_each_attempt_once(
    database: Database, notifier: RecordingNotifier
) -> None:
    _, _, keys = await running_jobs(database, 1000)
    enforcers = [TimeoutEnforcer(database.hot, notifier, batch_size=100) for _ in range(2)]

    async def until_done(enforcer: TimeoutEnforcer) -> None:
        while await enforcer.run_once():
            pass

    await asyncio.gather(*(until_done(enforcer) for enforcer in enforcers))
    await until_done(enforcers[0])
    assert set(await statuses(database.hot, ids_of(keys))) == {JobStatus.SCHEDULED}
    counts = await database.hot.fetch("SELECT DISTINCT jsonb_array_length(attempts) FROM jobs")
    assert [row[0] for row in counts] == [1]
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_the_sweep_reads_what_is_overdue_and_nothing_else(
    database: Database, mode: PlanMode
) -> None:
    await running_jobs(database, 20_000, times_out_in=IN_TIME)
    await running_jobs(database, 10, name="slow")
    await database.hot.execute("ANALYZE taskforge.jobs")
    async with Explainer(database.hot, mode) as explainer:
        await lock_overdue_leases(explainer, 1000)
        assert explainer.indexes == {"jobs_timeout"}
        assert explainer.scanned_tables == set()
        [overdue] = [node for node in explainer.plan if "Index Name" in node]
        assert overdue["Actual Rows"] == 10
