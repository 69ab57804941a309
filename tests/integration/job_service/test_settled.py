"""find_settled and revive_job: answers that are kept, and jobs that are always somewhere."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from asyncpg import Record
from tests.support.endings import leased_jobs
from tests.support.leases import LeaseKey, insert_session, lease, miscounts, statuses
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.waiting import until_blocked

from job_service.queries import (
    find_settled,
    revive_job,
)
from taskforge_core.database import Database
from taskforge_core.ending import end_leases
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor
from taskforge_core.retrying import Ending, Failed, Released, Snoozed, Succeeded
from taskforge_core.statuses import JobStatus

FATAL = Failed("no", retryable=False)


async def settle(
    database: Database, key: LeaseKey, ending: Ending, *, answered: bool = True
) -> None:
    async with database.hot.acquire() as connection, connection.transaction():
        ended = await end_leases(connection, DEFAULT_PROJECT_ID, {key: ending}, answered=answered)
    assert len(ended) == 1


async def settled(
    executor: Executor, keys: Sequence[LeaseKey], project_id: UUID = DEFAULT_PROJECT_ID
) -> dict[LeaseKey, JobStatus]:
    rows = await find_settled(
        executor, project_id, [key[0] for key in keys], [key[1] for key in keys]
    )
    found = {(row["id"], row["lease_seq"]): JobStatus(row["status"]) for row in rows}
    assert len(found) == len(rows)
    return found


async def row_of(database: Database, key: LeaseKey) -> Record:
    rows: list[Record] = await database.hot.fetch(
        "SELECT * FROM taskforge.jobs WHERE id = $1", UUID(key[0])
    )
    return rows[0]


# -- find_settled -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "answer"),
    [
        (Succeeded("1"), JobStatus.SUCCEEDED),
        (FATAL, JobStatus.FAILED),
        (Failed("no"), JobStatus.SCHEDULED),
        (Failed("no", retry_after=timedelta(0)), JobStatus.PENDING),
        (Released(), JobStatus.PENDING),
        (Snoozed(timedelta(hours=1)), JobStatus.SCHEDULED),
    ],
    ids=["success", "fatal", "failure", "failure at once", "release", "snooze"],
)
async def test_a_settle_is_found_with_its_answer_and_by_its_own_token_only(
    database: Database, ending: Ending, answer: JobStatus
) -> None:
    key, neighbour = await leased_jobs(database, 2)
    await settle(database, key, ending)
    job_id, lease_seq = key
    others = [(job_id, lease_seq + 1), (job_id, lease_seq - 1), (neighbour[0], lease_seq)]
    assert await settled(database.hot, [key, neighbour, *others, (str(uuid4()), 1)]) == {
        key: answer
    }
    other = await insert_project(database.hot)
    assert await settled(database.hot, [key], other) == {}


async def test_a_settle_that_was_superseded_is_found_no_longer(database: Database) -> None:
    [first] = await leased_jobs(database, 1)
    await settle(database, first, Released())
    assert await settled(database.hot, [first]) == {first: JobStatus.PENDING}
    [second] = await lease(database.hot, [UUID(first[0])], await insert_session(database.hot))
    assert await settled(database.hot, [first, second]) == {}
    await settle(database, second, Succeeded())
    assert await settled(database.hot, [first, second]) == {second: JobStatus.SUCCEEDED}


@pytest.mark.parametrize("ending", [Released(), FATAL], ids=["waiting", "history"])
async def test_what_no_worker_settled_is_not_found(database: Database, ending: Ending) -> None:
    [key] = await leased_jobs(database, 1)
    await settle(database, key, ending, answered=False)
    assert await settled(database.hot, [key]) == {}


async def test_an_answer_outlives_the_retry_of_its_job_until_the_next_lease(
    database: Database,
) -> None:
    """The worker that failed the job may repeat its settle, having missed the answer."""
    [key] = await leased_jobs(database, 1)
    await settle(database, key, FATAL)
    assert await revive(database, key) is not None
    assert await settled(database.hot, [key]) == {key: JobStatus.FAILED}
    await lease(database.hot, [UUID(key[0])], await insert_session(database.hot))
    assert await settled(database.hot, [key]) == {}


async def test_a_job_that_moves_is_found_on_one_side_at_every_moment(database: Database) -> None:
    keys = await leased_jobs(database, 10)
    for key in keys:
        await settle(database, key, FATAL)
    stop = asyncio.Event()

    async def move(key: LeaseKey) -> None:
        while not stop.is_set():
            assert await revive(database, key) is not None
            # Back to where it was: failed by the same lease.
            await database.hot.execute(
                "WITH gone AS (DELETE FROM taskforge.jobs WHERE id = $1 RETURNING *)"
                " INSERT INTO taskforge.job_history (project_id, id, queue_id, created_at,"
                " updated_at, completed_at, attempt_count, max_attempts, payload_bytes, status,"
                " priority, job_type, payload, attempts, last_seq, last_status)"
                " SELECT project_id, id, queue_id, created_at, updated_at, clock_timestamp(),"
                " attempt_count, max_attempts, payload_bytes, 5, priority, job_type, payload,"
                " attempts, $2, 5 FROM gone",
                UUID(key[0]),
                key[1],
            )

    movers = [asyncio.create_task(move(key)) for key in keys[:3]]
    for _ in range(150):
        assert await settled(database.hot, keys) == dict.fromkeys(keys, JobStatus.FAILED)
    stop.set()
    await asyncio.gather(*movers)


# -- revive_job ---------------------------------------------------------------------------------


async def revive(database: Database, key: LeaseKey, additional_attempts: int = 0) -> UUID | None:
    return await revive_job(database.hot, DEFAULT_PROJECT_ID, UUID(key[0]), additional_attempts)


async def failed_job(database: Database, *, attempts: int = 1, allowed: int = 3) -> LeaseKey:
    [key] = await leased_jobs(database, 1)
    await database.hot.execute(
        "UPDATE taskforge.jobs SET attempt_count = $1, max_attempts = $2, timeout = '5 s',"
        " labels = '{\"a\": \"b\"}', traceparent = 't', progress = '0.5' WHERE id = $3",
        attempts,
        allowed,
        UUID(key[0]),
    )
    await settle(database, key, FATAL)
    return key


async def test_a_failed_job_is_ready_again_with_all_that_belongs_to_it(database: Database) -> None:
    key = await failed_job(database)
    [before] = await database.hot.fetch("SELECT * FROM taskforge.job_history")
    queue_id = await revive(database, key)
    row = await row_of(database, key)
    assert queue_id == row["queue_id"] == before["queue_id"]
    kept = set(before.keys()) & set(row.keys()) - {"status", "updated_at"}
    assert {name: row[name] for name in kept} == {name: before[name] for name in kept}
    assert row["status"] == JobStatus.PENDING
    assert row["updated_at"] > before["updated_at"]
    assert row["lease_seq"] is row["session_id"] is row["timeout_at"] is None
    assert row["undelivered_count"] == 0
    assert await database.hot.fetch("SELECT FROM taskforge.job_history") == []
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize(
    ("attempts", "allowed", "additional", "revived"),
    [
        (1, 3, 0, True),
        (3, 3, 0, False),
        (3, 3, 1, True),
        (1, 1, 99, True),
        (2, 2, 99, False),
        (100, 100, 0, False),
        (99, 99, 1, True),
        (99, 100, 0, True),
        (99, 100, 1, False),
    ],
)
async def test_only_a_job_with_attempts_left_within_the_hundred_is_revived(
    database: Database, attempts: int, allowed: int, additional: int, revived: bool
) -> None:
    key = await failed_job(database, attempts=attempts, allowed=allowed)
    if revived:
        assert await revive(database, key, additional) is not None
        assert (await row_of(database, key))["max_attempts"] == allowed + additional
    else:
        async with unchanged(database.hot):
            assert await revive(database, key, additional) is None
    assert await miscounts(database.hot) == []


async def test_what_has_not_failed_is_not_revived(database: Database) -> None:
    queue_id = await insert_queue(database.hot, "q")
    other = await insert_project(database.hot)
    foreign_queue = await insert_queue(database.hot, "q", project_id=other)
    jobs = [
        job_id
        for status in JobStatus
        if status is not JobStatus.FAILED
        for job_id in await insert_jobs(database.hot, queue_id, status)
    ]
    jobs += await insert_jobs(database.hot, foreign_queue, JobStatus.FAILED, project_id=other)
    deleted = await insert_queue(database.hot, "deleted", deleted_at=datetime.now(UTC))
    jobs += await insert_jobs(database.hot, deleted, JobStatus.FAILED)
    async with unchanged(database.hot):
        for job_id in [*jobs, uuid4()]:
            assert await revive(database, (str(job_id), 0)) is None


async def test_a_job_of_a_paused_queue_may_be_revived(database: Database) -> None:
    """It waits there until the queue opens again."""
    key = await failed_job(database)
    await database.hot.execute("UPDATE taskforge.queues SET is_active = false")
    assert await revive(database, key) is not None


async def test_of_many_revivals_at_once_exactly_one_moves_the_job(database: Database) -> None:
    for _ in range(5):
        key = await failed_job(database)
        outcomes = await asyncio.gather(*(revive(database, key) for _ in range(8)))
        assert sum(outcome is not None for outcome in outcomes) == 1
        assert await statuses(database.hot, [UUID(key[0])]) == [JobStatus.PENDING]
    assert await miscounts(database.hot) == []


async def test_a_revival_that_waited_for_another_finds_nothing_left(database: Database) -> None:
    key = await failed_job(database)
    async with database.hot.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert await revive_job(connection, DEFAULT_PROJECT_ID, UUID(key[0]), 0) is not None
        waiting = asyncio.create_task(revive(database, key, 5))
        await until_blocked(database.hot, connection.get_server_pid())
        await transaction.commit()
    assert await waiting is None
    assert (await row_of(database, key))["max_attempts"] == 3
    assert await miscounts(database.hot) == []
