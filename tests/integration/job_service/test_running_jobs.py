"""lock_job, request_cancel, report_progress: what happens to single jobs while they run."""

import asyncio
from uuid import UUID, uuid4

from asyncpg import Record
from tests.support.endings import leased_jobs
from tests.support.leases import LeaseKey, insert_session, lease, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.waiting import until_blocked

from job_service.queries import (
    lock_job,
    report_progress,
    request_cancel,
)
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.retrying import Ending, Released, Succeeded
from taskforge_core.statuses import JobStatus


async def settle(
    database: Database, key: LeaseKey, ending: Ending, *, answered: bool = True
) -> None:
    async with database.hot.acquire() as connection, connection.transaction():
        ended = await end_leases(connection, DEFAULT_PROJECT_ID, {key: ending}, answered=answered)
    assert len(ended) == 1


async def row_of(database: Database, key: LeaseKey) -> Record:
    rows: list[Record] = await database.hot.fetch(
        "SELECT * FROM taskforge.jobs WHERE id = $1", UUID(key[0])
    )
    return rows[0]


async def test_an_unfinished_job_is_locked_and_a_finished_one_is_not_found(
    database: Database,
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    other = await insert_project(database.hot)
    for status in JobStatus:
        [job_id] = await insert_jobs(database.hot, queue_id, status)
        row = await lock_job(database.hot, DEFAULT_PROJECT_ID, job_id)
        if status in {JobStatus.PENDING, JobStatus.SCHEDULED, JobStatus.PROCESSING}:
            assert row is not None
            assert row["status"] == status
            assert (row["session_id"] is not None) == (status is JobStatus.PROCESSING)
        else:
            assert row is None
        assert await lock_job(database.hot, other, job_id) is None


async def test_a_locked_job_cannot_be_settled_until_the_lock_is_gone(database: Database) -> None:
    [key] = await leased_jobs(database, 1)
    async with database.hot.acquire() as connection, connection.transaction():
        row = await lock_job(connection, DEFAULT_PROJECT_ID, UUID(key[0]))
        assert row is not None
        settling = asyncio.create_task(settle(database, key, Succeeded()))
        await until_blocked(database.hot, connection.get_server_pid())
        await request_cancel(connection, DEFAULT_PROJECT_ID, UUID(key[0]))
    await settling
    assert await statuses(database.hot, [UUID(key[0])]) == [JobStatus.SUCCEEDED]


async def test_who_waits_for_a_job_that_is_settled_meanwhile_finds_none(
    database: Database,
) -> None:
    [key] = await leased_jobs(database, 1)
    async with database.hot.acquire() as connection, connection.transaction():
        await end_leases(connection, DEFAULT_PROJECT_ID, {key: Succeeded()}, answered=True)
        waiting = asyncio.create_task(lock_job(database.hot, DEFAULT_PROJECT_ID, UUID(key[0])))
        await until_blocked(database.hot, connection.get_server_pid())
    assert await waiting is None


async def test_a_cancellation_is_asked_for_once_and_only_of_what_runs(database: Database) -> None:
    [key] = await leased_jobs(database, 1)
    await request_cancel(database.hot, DEFAULT_PROJECT_ID, UUID(key[0]))
    first = (await row_of(database, key))["cancel_requested_at"]
    assert first is not None
    queue_id = await insert_queue(database.hot, "q")
    jobs = [
        job_id
        for status in JobStatus
        if status is not JobStatus.PROCESSING
        for job_id in await insert_jobs(database.hot, queue_id, status)
    ]
    async with unchanged(database.hot):
        for job_id in [UUID(key[0]), *jobs, uuid4()]:
            await request_cancel(database.hot, DEFAULT_PROJECT_ID, job_id)
    other = await insert_project(database.hot)
    [foreign] = await leased_jobs(database, 1, project_id=other)
    await request_cancel(database.hot, DEFAULT_PROJECT_ID, UUID(foreign[0]))
    assert (await row_of(database, foreign))["cancel_requested_at"] is None


async def test_only_the_holder_of_the_current_lease_reports_progress(database: Database) -> None:
    current, stale, settled_key = await leased_jobs(database, 3)
    other = await insert_project(database.hot)
    [foreign] = await leased_jobs(database, 1, project_id=other)
    await settle(database, stale, Released())
    [renewed] = await lease(database.hot, [UUID(stale[0])], await insert_session(database.hot))
    await settle(database, settled_key, Released())
    keys = sorted([current, stale, settled_key, foreign, (str(uuid4()), 1)])
    await report_progress(
        database.hot,
        DEFAULT_PROJECT_ID,
        [key[0] for key in keys],
        [key[1] for key in keys],
        [f'{{"of": {key[1]}}}' for key in keys],
    )
    assert (await row_of(database, current))["progress"] == f'{{"of": {current[1]}}}'
    for key in (renewed, settled_key, foreign):
        assert (await row_of(database, key))["progress"] is None


async def test_progress_is_the_text_as_it_was_sent(database: Database) -> None:
    [key] = await leased_jobs(database, 1)
    for progress in ('{"b": 1,  "a": "\\u0000é"}', "0.10", "null", '"x"'):
        await report_progress(database.hot, DEFAULT_PROJECT_ID, [key[0]], [key[1]], [progress])
        assert (await row_of(database, key))["progress"] == progress
