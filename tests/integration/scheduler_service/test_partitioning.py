"""The days of history to come are made in time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.history_days import (
    DEFAULT_TABLE,
    TODAY,
    days,
    finished_jobs,
    keeper_of,
    where,
)
from tests.support.leases import miscounts
from tests.support.rows import insert_jobs, insert_queue

from scheduler_service import queries
from scheduler_service.partitioning import DAYS_AHEAD, PartitionKeeper
from scheduler_service.queries import partition_name
from taskforge_core.database import Database
from taskforge_core.statuses import JobStatus


@pytest.fixture
def keeper(runtime: Database) -> PartitionKeeper:
    return keeper_of(runtime)


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


async def test_two_schedulers_at_once_make_each_day_once(
    database: Database, runtime: Database
) -> None:
    keepers = [keeper_of(runtime) for _ in range(2)]
    await keepers[0].run_once()
    made = await days(database)
    for name in made:
        await database.hot.execute(f"DROP TABLE {name}")
    # Whoever finds the other at work leaves the day to it, or to the next pass.
    await asyncio.gather(*(keeper.run_once() for keeper in keepers))
    await keepers[0].run_once()
    assert await days(database) == made
    assert await days(database, attached=False) == set()
