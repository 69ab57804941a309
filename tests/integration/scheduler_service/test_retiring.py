"""Days of history kept no longer go, with the counts exact at every moment."""

import asyncio
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from tests.support.history_days import (
    DEFAULT_TABLE,
    OLD,
    RETENTION,
    TODAY,
    days,
    finished_jobs,
    keeper_of,
    make_day,
    where,
)
from tests.support.leases import miscounts
from tests.support.waiting import until_blocked

from job_service.queries import revive_job
from scheduler_service import queries
from scheduler_service.partitioning import PartitionKeeper
from scheduler_service.queries import partition_name
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.queries import Executor
from taskforge_core.statuses import JobStatus


@pytest.fixture
def keeper(runtime: Database) -> PartitionKeeper:
    return keeper_of(runtime)


async def retry(executor: Executor, job_id: UUID) -> bool:
    """What RetryJob does in the database. Returns whether the job came back."""
    return await revive_job(executor, DEFAULT_PROJECT_ID, job_id, 0) is not None


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
        assert await retry(retrying, jobs[0])
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
    assert not await retrying
    assert await miscounts(database.hot) == []


async def test_readers_see_right_counts_while_two_schedulers_retire_days(
    database: Database, runtime: Database
) -> None:
    for age in range(16, 24):
        await make_day(database, TODAY - timedelta(days=age))
        await finished_jobs(database, TODAY - timedelta(days=age), 50)
    keepers = [keeper_of(runtime) for _ in range(2)]
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
    database: Database, runtime: Database
) -> None:
    old = await finished_jobs(database, OLD, 5)
    young = await finished_jobs(database, TODAY - timedelta(days=5))
    assert await where(database, old + young) == {DEFAULT_TABLE}
    keeper = keeper_of(runtime, batch_size=2)
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
        assert await retry(retrying, jobs[0])
        await keeper.run_once()
        if retry_commits:
            await transaction.commit()
        else:
            await transaction.rollback()
    await keeper.run_once()
    assert await database.hot.fetchval("SELECT count(*) FROM job_history") == 0
    assert await miscounts(database.hot) == []
