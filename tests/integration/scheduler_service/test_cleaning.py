"""What nobody needs any more goes, and nothing else."""

from datetime import timedelta
from uuid import UUID

import pytest
from tests.support.explaining import PLAN_MODES, Explainer, PlanMode
from tests.support.leases import insert_server, insert_session, lease, miscounts, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue

from scheduler_service import queries
from scheduler_service.cleaning import Cleaner
from scheduler_service.folding import Folder
from taskforge_core.database import Database
from taskforge_core.statuses import JobStatus

RETENTION = timedelta(hours=24)
DAYS_AGO = timedelta(days=-2)
HOURS_AGO = timedelta(hours=-2)
SOON = timedelta(minutes=1)


@pytest.fixture
def cleaner(database: Database) -> Cleaner:
    return Cleaner(database.hot, RETENTION, batch_size=3)


# -- Request ids ----------------------------------------------------------------------------------


async def insert_requests(database: Database, *ages: timedelta) -> None:
    await database.hot.execute(
        "INSERT INTO request_ids (project_id, request_id, content_hash, job_ids, created_at)"
        " SELECT $1, position::text, '', '{}', clock_timestamp() - age"
        " FROM unnest($2::interval[]) WITH ORDINALITY AS request (age, position)",
        UUID(int=1),
        list(ages),
    )


async def test_request_ids_are_forgotten_after_their_retention(
    database: Database, cleaner: Cleaner
) -> None:
    minute = timedelta(minutes=1)
    await insert_requests(database, timedelta(0), RETENTION - minute, RETENTION + minute)
    assert await cleaner.forget_requests() is False
    left = await database.hot.fetch("SELECT request_id FROM request_ids")
    assert {row["request_id"] for row in left} == {"1", "2"}


async def test_request_ids_are_forgotten_in_batches_the_oldest_first(
    database: Database, cleaner: Cleaner
) -> None:
    await insert_requests(database, *(RETENTION * age for age in (2, 5, 4, 3)))
    assert await cleaner.forget_requests() is True
    left = await database.hot.fetch("SELECT request_id FROM request_ids")
    assert [row["request_id"] for row in left] == ["1"]
    assert await cleaner.forget_requests() is False


async def test_a_request_id_that_is_in_use_is_left_for_the_next_pass(
    database: Database, cleaner: Cleaner
) -> None:
    await insert_requests(database, RETENTION * 2)
    async with database.hot.acquire() as user, user.transaction():
        await user.execute("SELECT FROM request_ids FOR UPDATE")
        await cleaner.forget_requests()
    assert await database.hot.fetchval("SELECT count(*) FROM request_ids") == 1
    await cleaner.forget_requests()
    assert await database.hot.fetchval("SELECT count(*) FROM request_ids") == 0


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_forgetting_reads_what_is_old_and_nothing_else(
    database: Database, mode: PlanMode
) -> None:
    ages = [RETENTION * 2] * 10 + [timedelta(0)] * 20_000
    await insert_requests(database, *ages)
    await database.hot.execute("ANALYZE taskforge.request_ids")
    async with Explainer(database.hot, mode) as explainer:
        assert await queries.forget_requests(explainer, RETENTION, 1000) == 10
        assert explainer.indexes == {"request_ids_age"}
        assert explainer.scanned_tables == set()


# -- Sessions and servers -------------------------------------------------------------------------


async def sessions(database: Database) -> set[UUID]:
    return {row["session_id"] for row in await database.hot.fetch("SELECT * FROM sessions")}


async def test_sessions_go_a_day_after_their_last_sign_of_life(
    database: Database, cleaner: Cleaner
) -> None:
    dead = await insert_server(database.hot, alive_for=HOURS_AGO)
    old = timedelta(days=3)
    for server_id in (None, dead):
        await insert_session(
            database.hot, expires_in=DAYS_AGO, created_ago=old, server_id=server_id
        )
    never_held = await insert_session(database.hot, expires_in=None, created_ago=old)
    just_expired = await insert_session(database.hot, expires_in=HOURS_AGO, created_ago=old)
    just_made = await insert_session(database.hot, expires_in=None)
    just_spoke = await insert_session(database.hot, expires_in=DAYS_AGO, created_ago=old)
    await database.hot.execute(
        "UPDATE sessions SET last_heartbeat_at = clock_timestamp() WHERE session_id = $1",
        just_spoke,
    )
    assert await cleaner.remove_sessions() is True
    await cleaner.remove_sessions()
    assert never_held not in await sessions(database)
    assert await sessions(database) == {just_expired, just_made, just_spoke}


async def test_a_session_with_an_open_stream_stays_however_long_it_gets_nothing(
    database: Database, cleaner: Cleaner
) -> None:
    server_id = await insert_server(database.hot, alive_for=SOON)
    old = timedelta(days=30)
    waiting = {
        await insert_session(database.hot, expires_in=None, created_ago=old, server_id=server_id),
        await insert_session(database.hot, expires_in=-old, created_ago=old, server_id=server_id),
    }
    await cleaner.remove_sessions()
    assert await sessions(database) == waiting


async def test_a_session_that_still_holds_a_lease_stays(
    database: Database, cleaner: Cleaner
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    ids = await insert_jobs(database.hot, queue_id)
    session_id = await insert_session(
        database.hot, expires_in=DAYS_AGO, created_ago=timedelta(days=3)
    )
    await lease(database.hot, ids, session_id)
    await cleaner.remove_sessions()
    assert await sessions(database) == {session_id}


async def test_a_session_that_is_in_use_is_left_for_the_next_pass(
    database: Database, cleaner: Cleaner
) -> None:
    session_id = await insert_session(database.hot, expires_in=None, created_ago=timedelta(days=3))
    async with database.hot.acquire() as claim, claim.transaction():
        await claim.execute("SELECT FROM sessions FOR NO KEY UPDATE")
        await cleaner.remove_sessions()
    assert await sessions(database) == {session_id}


async def test_servers_go_an_hour_after_their_last_sign_of_life(
    database: Database, cleaner: Cleaner
) -> None:
    await insert_server(database.hot, alive_for=HOURS_AGO)
    left = {
        await insert_server(database.hot, alive_for=SOON),
        await insert_server(database.hot, alive_for=timedelta(minutes=-30)),
    }
    await cleaner.remove_servers()
    rows = await database.hot.fetch("SELECT server_id FROM servers")
    assert {row["server_id"] for row in rows} == left


# -- Deleted queues -------------------------------------------------------------------------------


async def delete_queue(database: Database, queue_id: UUID, ago: timedelta) -> None:
    await database.hot.execute(
        "UPDATE queues SET deleted_at = clock_timestamp() - $1::interval WHERE id = $2",
        ago,
        queue_id,
    )


async def queue_ids(database: Database) -> set[UUID]:
    return {row["id"] for row in await database.hot.fetch("SELECT id FROM queues")}


async def test_jobs_that_slipped_into_a_deleted_queue_end_cancelled(
    database: Database, cleaner: Cleaner
) -> None:
    deleted = await insert_queue(database.hot, "deleted")
    other = await insert_queue(database.hot, "other")
    await delete_queue(database, deleted, timedelta(0))
    pending = await insert_jobs(database.hot, deleted)
    scheduled = await insert_jobs(database.hot, deleted, JobStatus.SCHEDULED)
    running = await insert_jobs(database.hot, deleted, JobStatus.PROCESSING)
    elsewhere = await insert_jobs(database.hot, other)
    assert await cleaner.clear_deleted_queues() is False
    assert await statuses(database.hot, pending + scheduled + running + elsewhere) == [
        JobStatus.CANCELLED,
        JobStatus.CANCELLED,
        JobStatus.PROCESSING,
        JobStatus.PENDING,
    ]
    assert await miscounts(database.hot) == []


async def test_they_are_cancelled_in_batches_in_every_project(
    database: Database, cleaner: Cleaner
) -> None:
    project_id = await insert_project(database.hot)
    first = await insert_queue(database.hot, "deleted")
    second = await insert_queue(database.hot, "deleted", project_id=project_id)
    ids = await insert_jobs(database.hot, first, priorities=[0] * 2)
    ids += await insert_jobs(database.hot, second, priorities=[0] * 2, project_id=project_id)
    for queue_id in (first, second):
        await delete_queue(database, queue_id, timedelta(0))
    assert await cleaner.clear_deleted_queues() is True
    assert await cleaner.clear_deleted_queues() is False
    assert set(await statuses(database.hot, ids)) == {JobStatus.CANCELLED}
    assert await miscounts(database.hot) == []


async def test_a_deleted_queue_goes_when_nothing_can_slip_into_it_any_more(
    database: Database, cleaner: Cleaner
) -> None:
    long_ago = await insert_queue(database.hot, "long ago")
    running = await insert_queue(database.hot, "still running")
    just_now = await insert_queue(database.hot, "just now")
    open_one = await insert_queue(database.hot, "open")
    await insert_jobs(database.hot, running, JobStatus.PROCESSING)
    await delete_queue(database, long_ago, -HOURS_AGO)
    await delete_queue(database, running, -HOURS_AGO)
    await delete_queue(database, just_now, timedelta(minutes=30))
    await cleaner.clear_deleted_queues()
    assert await queue_ids(database) == {running, just_now, open_one}


async def test_the_counts_of_a_removed_queue_stay_until_its_history_is_gone(
    database: Database, cleaner: Cleaner
) -> None:
    removed = await insert_queue(database.hot, "removed")
    other = await insert_queue(database.hot, "other")
    finished = await insert_jobs(database.hot, removed, JobStatus.SUCCEEDED)
    for queue_id in (removed, other):
        await insert_jobs(database.hot, queue_id)
    await Folder(database.hot).run_once()
    await delete_queue(database, removed, -HOURS_AGO)
    await cleaner.clear_deleted_queues()
    assert await queue_ids(database) == {other}
    # Retention takes the finished job, and all jobs of the other queue are done.
    await database.hot.execute("DELETE FROM job_history WHERE id = ANY($1::uuid[])", finished)
    await database.hot.execute("DELETE FROM jobs")
    await database.hot.execute(
        "INSERT INTO queue_deltas SELECT project_id, queue_id, status, -n FROM queue_counts"
        " WHERE (queue_id, status) IN (($1, 4), ($2, 1))",
        removed,
        other,
    )
    await Folder(database.hot).run_once()
    await cleaner.remove_empty_counts()
    rows = await database.hot.fetch("SELECT queue_id, status, n FROM queue_counts")
    # One cancelled job of the removed queue is left in history.
    assert {tuple(row) for row in rows} == {(removed, 6, 1), (other, 1, 0)}
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("mode", PLAN_MODES)
async def test_looking_into_deleted_queues_reads_no_other_queue(
    database: Database, mode: PlanMode
) -> None:
    busy = await insert_queue(database.hot, "busy")
    await insert_jobs(database.hot, busy, priorities=[0] * 20_000)
    deleted = await insert_queue(database.hot, "deleted")
    await insert_jobs(database.hot, deleted, priorities=[0] * 10)
    await delete_queue(database, deleted, -HOURS_AGO)
    await database.hot.execute("ANALYZE taskforge.jobs")
    async with Explainer(database.hot, mode) as explainer:
        found = await queries.find_waiting_jobs_of_deleted_queues(explainer, 1000)
        assert len(found) == 10
        assert "jobs" not in explainer.scanned_tables
        [probe] = [node for node in explainer.plan if node.get("Relation Name") == "jobs"]
        assert probe["Actual Rows"] == 10
        assert await queries.remove_deleted_queues(explainer, timedelta(hours=1)) == []
        assert "jobs" not in explainer.scanned_tables
