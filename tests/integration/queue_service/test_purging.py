"""Purging while others work in the same queue: each job goes once, and no running one."""

import asyncio
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.support.dead_letters import insert_dead_letters
from tests.support.history_days import TODAY, make_day, where
from tests.support.leases import insert_session, lease, miscounts, statuses
from tests.support.queue_replicas import Replica
from tests.support.races import at_once, reasons
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.waiting import until_blocked

from job_service.queries import revive_job
from queue_service.purging import Purger
from queue_service.queries import delete_finished_jobs, redrive_jobs
from scheduler_service.queries import promote_due_jobs
from taskforge.v1 import job_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ending import LeaseKey, end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7
from taskforge_core.projects import Projects
from taskforge_core.queries import cancel_waiting_jobs
from taskforge_core.retrying import Ending, Failed, Succeeded
from taskforge_core.statuses import FINISHED, WAITING, JobStatus

PENDING, SCHEDULED, PROCESSING = JobStatus.PENDING, JobStatus.SCHEDULED, JobStatus.PROCESSING
CANCELLED, FAILED = JobStatus.CANCELLED, JobStatus.FAILED
ALL = WAITING | FINISHED


async def purge(replica: Replica, *wanted: int) -> tuple[int, int]:
    """How many of the queue `emails` were cancelled and deleted."""
    answer = await replica.purger.purge(request(wanted))
    return answer.cancelled_jobs, answer.deleted_jobs


def request(wanted: Iterable[int]) -> pb.PurgeQueueRequest:
    return pb.PurgeQueueRequest(
        queue="emails", statuses=[job_pb2.JobStatus.ValueType(status) for status in wanted]
    )


# -- Steps ---------------------------------------------------------------------------------------


async def test_every_job_of_many_pages_and_batches_goes(
    replica: Replica, database: Database
) -> None:
    """The replica's pages have seven jobs, its batches three."""
    chance = random.Random(20261124)
    queue_id = await insert_queue(database.hot, "emails")
    other_id = await insert_queue(database.hot, "other")
    wanted = 0
    kept: list[UUID] = []
    for _ in range(60):
        status = chance.choice(sorted(JobStatus))
        count = chance.randint(1, 4)
        # Many of one moment, over many days of history.
        created_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=chance.randint(0, 5))
        ids = await insert_jobs(
            database.hot, queue_id, status, priorities=[0] * count, created_at=created_at
        )
        if status in {PENDING, FAILED}:
            wanted += count
        else:
            kept += ids
        await insert_jobs(database.hot, other_id, status, created_at=created_at)
    before = await statuses(database.hot, kept)
    cancelled, deleted = await purge(replica, PENDING, FAILED)
    assert cancelled + deleted == wanted
    assert await statuses(database.hot, kept) == before
    assert await miscounts(database.hot) == []
    assert await database.hot.fetchval(
        "SELECT count(*) FROM every_job WHERE queue_id = $1", other_id
    ) == len(range(60))
    assert await purge(replica, PENDING, FAILED) == (0, 0)


async def test_history_of_every_day_is_purged(replica: Replica, database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    ids = await insert_jobs(database.hot, queue_id, FAILED, priorities=[0] * 30)
    for ago in range(1, 5):
        day = TODAY - timedelta(days=ago)
        # The last day has no partition: what ended on it is in the one that no day owns.
        if ago < 4:
            await make_day(database, day)
        await database.hot.execute(
            "UPDATE job_history SET completed_at = $1 WHERE id = ANY($2)",
            datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
            ids[ago * 6 : ago * 6 + 6],
        )
    assert len(await where(database, ids)) == 5
    assert await purge(replica, FAILED) == (0, 30)
    assert await miscounts(database.hot) == []


async def test_what_came_or_ended_after_the_call_began_stays(
    replica: Replica, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    later = datetime.now(UTC) + timedelta(minutes=5)
    waiting = await insert_jobs(database.hot, queue_id, created_at=later)
    finished = await insert_jobs(database.hot, queue_id, FAILED)
    await database.hot.execute("UPDATE job_history SET completed_at = $1", later)
    assert await purge(replica, *ALL) == (0, 0)
    assert await statuses(database.hot, [*waiting, *finished]) == [PENDING, FAILED]


async def test_large_payloads_are_moved_few_at_a_time(replica: Replica, database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    await insert_jobs(database.hot, queue_id, priorities=[0] * 40, payload_bytes=1_048_576)
    purger = Purger(replica.database, Projects(replica.database))
    assert (await purger.purge(request([PENDING]))).cancelled_jobs == 40
    transactions = await database.hot.fetchval(
        "SELECT count(DISTINCT xmin::text) FROM job_history WHERE queue_id = $1", queue_id
    )
    assert transactions == 3


async def test_another_projects_queue_of_the_same_name_is_not_touched(
    replica: Replica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    other = await insert_project(database.hot)
    queue_id = await insert_queue(database.hot, "emails", project_id=other)
    for status in ALL:
        await insert_jobs(database.hot, queue_id, status, project_id=other)
    assert await purge(replica, *ALL) == (0, 0)
    theirs = request(ALL)
    theirs.project_id = str(other)
    answer = await replica.purger.purge(theirs)
    assert (answer.cancelled_jobs, answer.deleted_jobs) == (2, 3)


# -- Races ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
async def test_a_job_that_is_being_leased_is_waited_for_and_stays_if_it_is(
    replica: Replica, database: Database, commits: bool
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    taken, other = await insert_jobs(database.hot, queue_id, priorities=[0, 0])
    session_id = await insert_session(database.hot)
    async with database.hot.acquire() as connection:
        claim = connection.transaction()
        await claim.start()
        [key] = await lease(connection, [taken], session_id)
        purging = asyncio.create_task(purge(replica, PENDING))
        await until_blocked(database.hot, connection.get_server_pid())
        await (claim.commit() if commits else claim.rollback())
    assert await purging == (1 if commits else 2, 0)
    assert await statuses(database.hot, [taken, other]) == [
        PROCESSING if commits else CANCELLED,
        CANCELLED,
    ]
    assert await miscounts(database.hot) == []
    ended = await end_leases(database.hot, DEFAULT_PROJECT_ID, {key: Succeeded()}, answered=True)
    assert len(ended) == commits


async def test_a_job_that_becomes_ready_meanwhile_is_not_purged_as_scheduled(
    replica: Replica, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    due, later = await insert_jobs(database.hot, queue_id, SCHEDULED, priorities=[0, 0])
    await database.hot.execute(
        "UPDATE jobs SET scheduled_for = clock_timestamp() WHERE id = $1", due
    )
    async with database.hot.acquire() as connection, connection.transaction():
        await promote_due_jobs(connection, 10)
        purging = asyncio.create_task(purge(replica, SCHEDULED))
        await until_blocked(database.hot, connection.get_server_pid())
    assert await purging == (1, 0)
    assert await statuses(database.hot, [due, later]) == [PENDING, CANCELLED]
    assert await miscounts(database.hot) == []


async def test_a_job_that_goes_to_another_queue_meanwhile_stays(
    replica: Replica, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    origin_id = await insert_queue(database.hot, "origin")
    [moved] = await insert_dead_letters(database, queue_id, origin_id)
    async with database.hot.acquire() as connection, connection.transaction():
        await redrive_jobs(
            connection, DEFAULT_PROJECT_ID, queue_id, [moved], 0, datetime.now(UTC), None
        )
        purging = asyncio.create_task(purge(replica, PENDING))
        await until_blocked(database.hot, connection.get_server_pid())
    assert await purging == (0, 0)
    assert await statuses(database.hot, [moved]) == [PENDING]
    assert await miscounts(database.hot) == []


async def test_a_job_that_somebody_else_cancels_is_counted_once(
    replica: Replica, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    first, second = await insert_jobs(database.hot, queue_id, priorities=[0, 0])
    async with database.hot.acquire() as connection, connection.transaction():
        assert await cancel_waiting_jobs(connection, DEFAULT_PROJECT_ID, [str(first)])
        purging = asyncio.create_task(purge(replica, PENDING))
        await until_blocked(database.hot, connection.get_server_pid())
    assert await purging == (1, 0)
    assert await statuses(database.hot, [first, second]) == [CANCELLED, CANCELLED]
    assert await miscounts(database.hot) == []


async def test_a_running_job_is_not_even_waited_for(replica: Replica, database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    ids = await insert_jobs(database.hot, queue_id, priorities=[0, 0])
    keys = await lease(database.hot, ids, await insert_session(database.hot))
    async with database.hot.acquire() as connection, connection.transaction():
        endings: dict[LeaseKey, Ending] = {keys[0]: Succeeded(), keys[1]: Failed("broken")}
        await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=True)
        async with asyncio.timeout(10):
            assert await purge(replica, *ALL) == (0, 0)
    assert await statuses(database.hot, ids) == [JobStatus.SUCCEEDED, SCHEDULED]
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("commits", [True, False])
async def test_a_failed_job_that_is_being_tried_again_is_waited_for_and_stays_if_it_is(
    replica: Replica, database: Database, commits: bool
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    retried, other = await insert_jobs(database.hot, queue_id, FAILED, priorities=[0, 0])
    async with database.hot.acquire() as connection:
        retry = connection.transaction()
        await retry.start()
        assert await revive_job(connection, DEFAULT_PROJECT_ID, retried, 0) is not None
        purging = asyncio.create_task(purge(replica, FAILED))
        await until_blocked(database.hot, connection.get_server_pid())
        await (retry.commit() if commits else retry.rollback())
    assert await purging == (0, 1 if commits else 2)
    left = await database.hot.fetch("SELECT id, status FROM every_job")
    assert [tuple(row) for row in left] == ([(retried, PENDING)] if commits else [])
    assert other not in {row["id"] for row in left}
    assert await miscounts(database.hot) == []


async def test_a_job_that_ended_anew_since_it_was_looked_at_stays(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    [job_id] = await insert_jobs(database.hot, queue_id, FAILED)
    ended_at = await database.hot.fetchval("SELECT completed_at FROM job_history")
    await revive_job(database.hot, DEFAULT_PROJECT_ID, job_id, 0)
    keys = await lease(database.hot, [job_id], await insert_session(database.hot))
    await end_leases(database.hot, DEFAULT_PROJECT_ID, {keys[0]: Succeeded()}, answered=True)
    assert await delete_finished_jobs(database.hot, DEFAULT_PROJECT_ID, [job_id], [ended_at]) == 0
    assert await statuses(database.hot, [job_id]) == [JobStatus.SUCCEEDED]
    assert await miscounts(database.hot) == []


async def test_purges_at_once_share_the_jobs(
    replicas: tuple[Replica, Replica], database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    for status in ALL:
        await insert_jobs(database.hot, queue_id, status, priorities=[0] * 100)
    outcomes = await at_once([purge(replica, *ALL) for replica in replicas for _ in range(2)])
    assert reasons(outcomes) == []
    assert sum(cancelled for cancelled, _ in outcomes) == 200
    deleted = sum(deleted for _, deleted in outcomes)
    # A later call may delete what an earlier one cancelled before it began.
    assert 300 <= deleted <= 500
    assert await purge(replicas[0], *ALL) == (0, 500 - deleted)
    assert await miscounts(database.hot) == []


async def test_counts_stay_exact_and_running_jobs_safe_whatever_goes_on(
    replica: Replica, database: Database
) -> None:
    """Creations, leases, settles, retries and purges at once; then each job is accounted for."""
    chance = random.Random(20261124)
    queue_id = await insert_queue(database.hot, "emails")
    session_id = await insert_session(database.hot)
    settled = 0
    leased = 0

    async def produce() -> None:
        for _ in range(40):
            status = chance.choice(sorted(WAITING))
            await insert_jobs(database.hot, queue_id, status, priorities=[0] * 5)

    async def work() -> None:
        nonlocal settled, leased
        for _ in range(40):
            async with database.hot.acquire() as connection, connection.transaction():
                rows = await connection.fetch(
                    "SELECT id FROM jobs WHERE status = 1 LIMIT 5 FOR UPDATE SKIP LOCKED"
                )
                keys = await lease(connection, [row["id"] for row in rows], session_id)
            leased += len(keys)
            endings: dict[LeaseKey, Ending] = {}
            for key in keys:
                endings[key] = Succeeded() if chance.random() < 0.5 else Failed(retryable=False)
            async with database.hot.acquire() as connection, connection.transaction():
                ended = await end_leases(connection, DEFAULT_PROJECT_ID, endings, answered=True)
            settled += len(ended)

    async def retry() -> None:
        for _ in range(40):
            for row in await database.hot.fetch(
                "SELECT id FROM job_history WHERE status = 5 LIMIT 3"
            ):
                await revive_job(database.hot, DEFAULT_PROJECT_ID, row["id"], 0)

    async def purge_again_and_again() -> None:
        for _ in range(15):
            await purge(replica, *chance.sample(sorted(ALL), 2))

    await asyncio.gather(produce(), work(), work(), retry(), purge_again_and_again())
    # A lease is ended by its settle alone: none was taken away.
    assert settled == leased > 0
    assert await miscounts(database.hot) == []
    await purge(replica, *WAITING)
    await purge(replica, *FINISHED)
    assert await database.hot.fetchval("SELECT count(*) FROM every_job") == 0
    assert await miscounts(database.hot) == []


async def test_an_unknown_id_finds_no_queue(replica: Replica) -> None:
    wrong = request([PENDING])
    wrong.queue = str(uuid7())
    outcomes = await at_once([replica.purger.purge(wrong)])
    assert reasons(outcomes) == ["QUEUE_NOT_FOUND"]
