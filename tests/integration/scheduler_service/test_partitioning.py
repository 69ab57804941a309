"""History gets its days in time, and loses them with the counts exact."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from tests.support.leases import miscounts
from tests.support.rows import insert_jobs, insert_queue
from tests.support.waiting import until_blocked

from scheduler_service import queries
from scheduler_service.partitioning import DAYS_AHEAD, PartitionKeeper
from scheduler_service.queries import partition_name
from taskforge_core.database import Database
from taskforge_core.queries import Executor
from taskforge_core.statuses import JobStatus

RETENTION = timedelta(days=14)
TODAY = datetime.now(UTC).date()
"""The tests tolerate a midnight between this and the database's clock by looking at other days."""

OLD = TODAY - timedelta(days=20)
DEFAULT_TABLE = "job_history_default"


def keeper_of(database: Database, batch_size: int = 5000) -> PartitionKeeper:
    return PartitionKeeper(database.hot, RETENTION, batch_size)


@pytest.fixture
def keeper(database: Database) -> PartitionKeeper:
    return keeper_of(database)


async def days(database: Database, *, attached: bool = True) -> set[str]:
    """The tables of single days that are partitions now, or those that are none."""
    tables = await queries.list_partitions(database.hot)
    return {name for name, is_attached in tables.items() if is_attached is attached}


async def make_day(database: Database, day: date) -> None:
    await queries.create_partition(database.hot, day)
    await queries.attach_partition(database.hot, day)


async def finished_jobs(
    database: Database, day: date, count: int = 3, status: JobStatus = JobStatus.FAILED
) -> list[UUID]:
    """Jobs that ended on a day, in a queue of their own."""
    queue_id = await insert_queue(database.hot, f"{day} {count} {status}")
    ids = await insert_jobs(database.hot, queue_id, status, priorities=[0] * count)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    await database.hot.execute(
        "UPDATE job_history SET completed_at = $1 WHERE id = ANY($2::uuid[])", noon, ids
    )
    return ids


async def where(database: Database, ids: list[UUID]) -> set[str]:
    """The partitions that jobs are in."""
    rows = await database.hot.fetch(
        "SELECT DISTINCT tableoid::regclass::text AS name FROM job_history WHERE id = ANY($1)", ids
    )
    return {row["name"] for row in rows}


async def retry(executor: Executor, job_id: UUID) -> int:
    """What RetryJob does, as far as history and counts go. Returns how many jobs came back."""
    rows = await executor.fetch(
        """
        WITH gone AS (
            DELETE FROM job_history WHERE id = $1 AND status = 5 RETURNING *
        ), made AS (
            INSERT INTO jobs (project_id, id, queue_id, created_at, updated_at, max_attempts,
                payload_bytes, status, priority, job_type, payload)
            SELECT project_id, id, queue_id, created_at, clock_timestamp(), max_attempts,
                payload_bytes, 1, priority, job_type, payload
            FROM gone
        ), counted AS (
            INSERT INTO queue_deltas (project_id, queue_id, status, n)
            SELECT project_id, queue_id, change.status, change.n
            FROM gone, (VALUES (5, -1), (1, 1)) AS change (status, n)
        )
        SELECT id FROM gone
        """,
        job_id,
    )
    return len(rows)


# -- Days to come ---------------------------------------------------------------------------------


async def test_the_days_to_come_are_made(database: Database, keeper: PartitionKeeper) -> None:
    await keeper.run_once()
    made = await days(database)
    for ahead in (1, DAYS_AHEAD):
        day = TODAY + timedelta(days=ahead)
        await queries.detach_partition(database.hot, day)
        await queries.drop_partition(database.hot, day)
    await keeper.run_once()
    assert await days(database) == made
    assert {partition_name(TODAY + timedelta(days=ahead)) for ahead in range(8)} <= made
    jobs = await finished_jobs(database, TODAY + timedelta(days=1))
    assert await where(database, jobs) == {partition_name(TODAY + timedelta(days=1))}


async def test_a_day_bears_the_jobs_from_its_midnight_to_the_next_in_utc(
    database: Database, keeper: PartitionKeeper
) -> None:
    await keeper.run_once()
    day = TODAY + timedelta(days=3)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    queue_id = await insert_queue(database.hot, "emails")
    ids = await insert_jobs(database.hot, queue_id, JobStatus.FAILED, priorities=[0] * 4)
    moments = [
        midnight - timedelta(microseconds=1),
        midnight,
        midnight + timedelta(days=1, microseconds=-1),
        midnight + timedelta(days=1),
    ]
    for job_id, moment in zip(ids, moments, strict=True):
        await database.hot.execute(
            "UPDATE job_history SET completed_at = $1 WHERE id = $2", moment, job_id
        )
    assert [await where(database, [job_id]) for job_id in ids] == [
        {partition_name(day - timedelta(days=1))},
        {partition_name(day)},
        {partition_name(day)},
        {partition_name(day + timedelta(days=1))},
    ]


async def test_a_day_has_the_indexes_of_history(
    database: Database, keeper: PartitionKeeper
) -> None:
    day = TODAY + timedelta(days=DAYS_AHEAD)
    await keeper.run_once()
    await queries.detach_partition(database.hot, day)
    await queries.drop_partition(database.hot, day)
    await keeper.run_once()
    parents = await database.hot.fetch(
        "SELECT inhparent::regclass::text AS name FROM pg_inherits"
        " JOIN pg_index ON indexrelid = inhrelid WHERE indrelid = $1::regclass",
        partition_name(day),
    )
    assert {row["name"] for row in parents} == {"job_history_key", "job_history_listing"}


async def test_a_table_that_was_made_but_not_attached_is_attached_by_the_next_pass(
    database: Database, keeper: PartitionKeeper
) -> None:
    day = TODAY + timedelta(days=2)
    await keeper.run_once()
    await queries.detach_partition(database.hot, day)
    assert partition_name(day) in await days(database, attached=False)
    await keeper.run_once()
    assert partition_name(day) in await days(database)


async def test_a_day_whose_jobs_are_in_default_is_skipped_and_the_others_are_made(
    database: Database, keeper: PartitionKeeper
) -> None:
    await keeper.run_once()
    skipped, other = TODAY + timedelta(days=2), TODAY + timedelta(days=3)
    for day in (skipped, other):
        await queries.detach_partition(database.hot, day)
        await queries.drop_partition(database.hot, day)
    jobs = await finished_jobs(database, skipped)
    assert await where(database, jobs) == {DEFAULT_TABLE}
    await keeper.run_once()
    assert partition_name(other) in await days(database)
    assert partition_name(skipped) not in await days(database)
    assert await where(database, jobs) == {DEFAULT_TABLE}
    assert await miscounts(database.hot) == []


async def test_two_schedulers_at_once_make_each_day_once(database: Database) -> None:
    keepers = [keeper_of(database) for _ in range(2)]
    await keepers[0].run_once()
    made = await days(database)
    for name in made:
        await database.hot.execute(f"DROP TABLE {name}")
    # Whoever finds the other at work leaves the day to it, or to the next pass.
    await asyncio.gather(*(keeper.run_once() for keeper in keepers))
    await keepers[0].run_once()
    assert await days(database) == made
    assert await days(database, attached=False) == set()


# -- Days kept no longer --------------------------------------------------------------------------


async def test_a_day_kept_no_longer_goes_with_its_jobs_and_their_counts(
    database: Database, keeper: PartitionKeeper
) -> None:
    await make_day(database, OLD)
    for status in (JobStatus.FAILED, JobStatus.SUCCEEDED):
        old = await finished_jobs(database, OLD, status=status)
        assert await where(database, old) == {partition_name(OLD)}
    young = await finished_jobs(database, TODAY + timedelta(days=1))
    assert await keeper.run_once() is False
    tables = await queries.list_partitions(database.hot)
    assert partition_name(OLD) not in tables
    assert await database.hot.fetchval("SELECT count(*) FROM job_history") == len(young)
    assert await miscounts(database.hot) == []


async def test_whole_days_are_dropped_once_their_last_moment_is_too_old(
    database: Database, keeper: PartitionKeeper
) -> None:
    today, first_kept = await queries.read_days(database.hot, RETENTION)
    assert first_kept == today - RETENTION
    for day in (first_kept - timedelta(days=1), first_kept):
        await make_day(database, day)
    await keeper.run_once()
    left = await days(database)
    assert partition_name(first_kept - timedelta(days=1)) not in left
    # A midnight that has just passed may have made it too old as well.
    if (await queries.read_days(database.hot, RETENTION))[1] == first_kept:
        assert partition_name(first_kept) in left


async def test_a_day_that_someone_reads_is_left_for_a_later_pass(
    database: Database, keeper: PartitionKeeper
) -> None:
    await make_day(database, OLD)
    jobs = await finished_jobs(database, OLD)
    async with database.hot.acquire() as reader, reader.transaction():
        assert await reader.fetchval("SELECT count(*) FROM job_history") == len(jobs)
        await keeper.run_once()
        # Nothing was subtracted that is still there.
        assert await miscounts(reader) == []
        assert await where(database, jobs) == {partition_name(OLD)}
    await keeper.run_once()
    assert partition_name(OLD) not in await queries.list_partitions(database.hot)
    assert await miscounts(database.hot) == []


async def test_a_busy_day_does_not_keep_the_others(
    database: Database, keeper: PartitionKeeper
) -> None:
    other = OLD + timedelta(days=1)
    for day in (OLD, other):
        await make_day(database, day)
        await finished_jobs(database, day)
    async with database.hot.acquire() as reader, reader.transaction():
        await reader.execute(f"SELECT FROM {partition_name(OLD)}")
        await keeper.run_once()
    rows = await database.hot.fetch("SELECT DISTINCT completed_at::date AS day FROM job_history")
    assert {row["day"] for row in rows} == {OLD}
    await keeper.run_once()
    left = await queries.list_partitions(database.hot)
    assert not {partition_name(OLD), partition_name(other)} & left.keys()
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("retry_commits", [True, False])
async def test_a_retry_that_came_first_takes_its_job_out_of_the_day(
    database: Database, keeper: PartitionKeeper, retry_commits: bool
) -> None:
    await make_day(database, OLD)
    jobs = await finished_jobs(database, OLD)
    async with database.hot.acquire() as retrying:
        transaction = retrying.transaction()
        await transaction.start()
        assert await retry(retrying, jobs[0]) == 1
        await keeper.run_once()
        assert partition_name(OLD) in await days(database)
        if retry_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    await keeper.run_once()
    assert partition_name(OLD) not in await queries.list_partitions(database.hot)
    waiting = await database.hot.fetchval("SELECT count(*) FROM jobs")
    assert waiting == (1 if retry_commits else 0)
    assert await miscounts(database.hot) == []


async def test_a_retry_that_comes_while_a_day_is_emptied_waits_and_finds_nothing(
    database: Database,
) -> None:
    await make_day(database, OLD)
    jobs = await finished_jobs(database, OLD)
    async with database.hot.acquire() as emptying, emptying.transaction():
        await queries.lock_partition(emptying, OLD)
        assert await queries.subtract_partition(emptying, OLD) == len(jobs)
        retrying = asyncio.create_task(retry(database.hot, jobs[0]))
        await until_blocked(database.hot, await emptying.fetchval("SELECT pg_backend_pid()"))
        await queries.empty_partition(emptying, OLD)
    assert await retrying == 0
    assert await miscounts(database.hot) == []


async def test_readers_see_right_counts_while_two_schedulers_retire_days(
    database: Database,
) -> None:
    for age in range(16, 24):
        await make_day(database, TODAY - timedelta(days=age))
        await finished_jobs(database, TODAY - timedelta(days=age), 50)
    keepers = [keeper_of(database) for _ in range(2)]
    wrong: list[object] = []
    running = True

    async def read() -> None:
        while running:
            try:
                wrong.extend(await miscounts(database.hot))
            except asyncpg.LockNotAvailableError:
                continue

    reader = asyncio.create_task(read())
    try:
        while await database.hot.fetchval("SELECT count(*) FROM job_history"):
            await asyncio.gather(*(keeper.run_once() for keeper in keepers))
    finally:
        running = False
        await reader
    assert wrong == []


async def test_an_emptied_day_that_could_not_be_taken_out_goes_with_a_later_pass(
    database: Database, keeper: PartitionKeeper
) -> None:
    await make_day(database, OLD)
    detached = OLD - timedelta(days=1)
    await queries.create_partition(database.hot, detached)
    await keeper.run_once()
    left = await queries.list_partitions(database.hot)
    assert not {partition_name(OLD), partition_name(detached)} & left.keys()


async def test_a_day_that_a_person_took_out_is_theirs(
    database: Database, keeper: PartitionKeeper
) -> None:
    await make_day(database, OLD)
    jobs = await finished_jobs(database, OLD)
    await queries.detach_partition(database.hot, OLD)
    await keeper.run_once()
    assert await database.hot.fetchval(f"SELECT count(*) FROM {partition_name(OLD)}") == len(jobs)


async def test_a_table_with_another_name_is_none_of_ours(
    database: Database, keeper: PartitionKeeper
) -> None:
    for name in ("job_history_20010231", "job_history_2001", "job_history_20010101_copy"):
        await database.hot.execute(f"CREATE TABLE {name} (LIKE job_history)")
    await keeper.run_once()
    assert await database.hot.fetchval("SELECT to_regclass('job_history_20010231') IS NOT NULL")
    assert await database.hot.fetchval("SELECT to_regclass('job_history_2001') IS NOT NULL")
    assert await database.hot.fetchval(
        "SELECT to_regclass('job_history_20010101_copy') IS NOT NULL"
    )


async def test_while_another_changes_partitions_nothing_is_done(
    database: Database, keeper: PartitionKeeper
) -> None:
    await make_day(database, OLD)
    async with database.hot.acquire() as other, other.transaction():
        assert await queries.take_partition_turn(other)
        await keeper.run_once()
    assert partition_name(OLD) in await days(database)
    await keeper.run_once()
    assert partition_name(OLD) not in await days(database)


# -- The partition that no day owns ---------------------------------------------------------------


async def test_old_jobs_that_no_day_owns_are_deleted_in_batches_with_their_counts(
    database: Database,
) -> None:
    old = await finished_jobs(database, OLD, 5)
    young = await finished_jobs(database, TODAY - timedelta(days=5))
    assert await where(database, old + young) == {DEFAULT_TABLE}
    keeper = keeper_of(database, batch_size=2)
    assert [await keeper.run_once() for _ in range(3)] == [True, True, False]
    assert await database.hot.fetchval("SELECT count(*) FROM job_history") == len(young)
    assert await where(database, young) == {DEFAULT_TABLE}
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("retry_commits", [True, False])
async def test_a_retry_of_an_old_job_that_no_day_owns_counts_once(
    database: Database, keeper: PartitionKeeper, retry_commits: bool
) -> None:
    jobs = await finished_jobs(database, OLD)
    async with database.hot.acquire() as retrying:
        transaction = retrying.transaction()
        await transaction.start()
        assert await retry(retrying, jobs[0]) == 1
        await keeper.run_once()
        if retry_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    await keeper.run_once()
    assert await database.hot.fetchval("SELECT count(*) FROM job_history") == 0
    assert await miscounts(database.hot) == []
