"""What a queue's limits, delays and pauses do to its jobs, exact over replicas.

What runs is read from a log that a trigger on `jobs` writes, not from what clients believe.
"""

import asyncio
import random
from datetime import datetime, timedelta

import pytest
from tests.support.job_calls import acquire, complete, create, create_all, get, release, spec
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream, until_total
from tests.support.leases import miscounts
from tests.support.rows import insert_queue

from taskforge.v1 import job_pb2
from taskforge_core.database import Database

WATCH = """
CREATE TABLE public.runs (at timestamptz NOT NULL, started boolean NOT NULL, job uuid NOT NULL);
CREATE FUNCTION public.log_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.status = 3 THEN
        INSERT INTO public.runs VALUES (clock_timestamp(), false, OLD.id);
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.status = 3 THEN
        INSERT INTO public.runs VALUES (clock_timestamp(), true, NEW.id);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER log_run AFTER UPDATE OR DELETE ON taskforge.jobs
FOR EACH ROW EXECUTE FUNCTION public.log_run();
"""


async def most_at_once(database: Database) -> int:
    """The most jobs that ran at the same time. Ends before starts: a slot is freed, then taken."""
    rows = await database.hot.fetch("SELECT started FROM public.runs ORDER BY at, started")
    running = most = 0
    for row in rows:
        running += 1 if row["started"] else -1
        most = max(most, running)
    return most


async def starts(database: Database) -> list[datetime]:
    rows = await database.hot.fetch("SELECT at FROM public.runs WHERE started ORDER BY at")
    return [row["at"] for row in rows]


async def set_limit(database: Database, **columns: int | None) -> None:
    for name, value in columns.items():
        await database.hot.execute(f"UPDATE taskforge.queues SET {name} = $1", value)


async def test_no_more_jobs_run_at_once_than_the_queue_allows_over_all_replicas(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails", max_concurrent_jobs=5)
    await database.hot.execute(WATCH)
    await create_all(replica.stub, [spec()] * 60)
    chance = random.Random(11)
    done = 0

    async def work(stub_of: JobReplica) -> None:
        nonlocal done
        while done < 60:
            for lease in await acquire(stub_of.stub, max_in_flight=chance.randint(1, 8)):
                if chance.random() < 0.2:
                    await release(stub_of.stub, lease.lease_token)
                else:
                    await complete(stub_of.stub, lease.lease_token)
                    done += 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(each) for each in (replica, other_replica) for _ in range(4)))
    assert await most_at_once(database) == 5
    assert await miscounts(database.hot) == []


async def test_streams_of_two_replicas_share_the_slots_and_refill_them_at_once(
    replica: JobReplica, other_replica: JobReplica, database: Database, no_polls: None
) -> None:
    await insert_queue(database.hot, "emails", max_concurrent_jobs=3)
    await database.hot.execute(WATCH)
    async with (
        lease_stream(replica.stub, max_in_flight=10) as one,
        lease_stream(other_replica.stub, max_in_flight=10) as two,
    ):
        await replica.until_taking(1)
        await other_replica.until_taking(1)
        await create_all(replica.stub, [spec()] * 12)
        settled: set[str] = set()
        for count in range(3, 13):
            await until_total(count, one, two)
            token = next(each for each in [*one.tokens, *two.tokens] if each not in settled)
            settled.add(token)
            # Settled elsewhere than leased, half of the time: the slot is free all the same.
            await complete(random.choice([replica, other_replica]).stub, token)
    assert await most_at_once(database) == 3


async def test_a_lower_limit_binds_the_next_claim_and_a_higher_one_too(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 20)
    first = await acquire(replica.stub, max_in_flight=6)
    assert len(first) == 6
    await set_limit(database, max_concurrent_jobs=4)
    assert await acquire(replica.stub) == []
    for lease in first[:3]:
        await complete(replica.stub, lease.lease_token)
    assert len(await acquire(replica.stub)) == 1
    await set_limit(database, max_concurrent_jobs=6)
    assert len(await acquire(replica.stub)) == 2


async def test_a_full_queue_does_not_keep_others_waiting(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "full", priority=9, max_concurrent_jobs=1)
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec("full")] * 200)
    await create_all(replica.stub, [spec()] * 3)
    leases = await acquire(replica.stub, max_in_flight=4)
    assert [lease.job.status for lease in leases] == [job_pb2.JOB_STATUS_PROCESSING] * 4
    assert len({lease.job.queue_id for lease in leases}) == 2


async def test_no_more_jobs_start_in_a_minute_than_the_queue_allows(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails", rate_limit_per_minute=7)
    await database.hot.execute(WATCH)
    await create_all(replica.stub, [spec()] * 40)
    answers = await asyncio.gather(
        *(
            acquire(each.stub, max_in_flight=3)
            for each in (replica, other_replica)
            for _ in range(5)
        )
    )
    tokens = [lease.lease_token for answer in answers for lease in answer]
    # What is given back has started all the same.
    await asyncio.gather(*(release(replica.stub, token) for token in tokens))
    while len(await starts(database)) < 7:
        await acquire(replica.stub, max_in_flight=3)
    assert await acquire(replica.stub) == []
    assert len(await starts(database)) == 7
    # An hour ago by the queue's own record: the window has passed.
    await database.hot.execute(
        "UPDATE taskforge.queue_starts SET seconds = ARRAY(SELECT s - 61 FROM unnest(seconds) s)"
    )
    again = [await acquire(other_replica.stub) for _ in range(3)]
    assert sum(map(len, again)) == 7


async def test_a_rate_counts_from_the_moment_it_is_set_and_on_when_it_is_changed(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 20)
    assert len(await acquire(replica.stub, max_in_flight=5)) == 5
    await set_limit(database, rate_limit_per_minute=2)
    assert len(await acquire(replica.stub)) == 2
    await set_limit(database, rate_limit_per_minute=6)
    assert len(await acquire(replica.stub)) == 4
    assert await acquire(replica.stub) == []


async def test_both_limits_hold_together(replica: JobReplica, database: Database) -> None:
    await insert_queue(database.hot, "emails", rate_limit_per_minute=5, max_concurrent_jobs=3)
    await create_all(replica.stub, [spec()] * 10)
    first = await acquire(replica.stub)
    assert len(first) == 3
    for lease in first:
        await complete(replica.stub, lease.lease_token)
    assert len(await acquire(replica.stub)) == 2
    assert await acquire(replica.stub) == []


async def test_a_claim_under_no_limit_that_is_still_open_is_counted_by_the_first_under_one(
    replica: JobReplica, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 5)
    async with database.hot.acquire() as connection, connection.transaction():
        # What a claim without limits holds until its commit.
        await connection.execute(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended($1::text, 0))", str(queue_id)
        )
        await set_limit(database, max_concurrent_jobs=2)
        assert await acquire(replica.stub) == []
    assert len(await acquire(replica.stub)) == 2


@pytest.mark.parametrize(
    ("priority", "seconds"), [(0, 30), (2, 30), (3, 10), (5, 10), (6, 5), (7, 5), (8, 0), (9, 0)]
)
async def test_a_new_job_waits_by_its_priority_where_the_queue_says_so(
    replica: JobReplica, database: Database, priority: int, seconds: int
) -> None:
    await insert_queue(database.hot, "emails", delays_by_priority=True)
    job = await create(replica.stub, priority=priority)
    wait = job.scheduled_for.ToDatetime() - job.created_at.ToDatetime()
    assert wait == timedelta(seconds=seconds)
    waiting = job_pb2.JOB_STATUS_SCHEDULED if seconds else job_pb2.JOB_STATUS_PENDING
    assert job.status == waiting
    assert (await get(replica.stub, job.id)).status == waiting


async def test_the_delays_are_the_queues_own_and_a_later_schedule_wins(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(
        database.hot, "emails", delays_by_priority=True, delay_urgent=timedelta(minutes=1)
    )
    urgent = await create(replica.stub, priority=9)
    assert urgent.scheduled_for.seconds - urgent.created_at.seconds == 60
    later = job_pb2.JobSpec()
    later.scheduled_for.FromDatetime(urgent.created_at.ToDatetime() + timedelta(hours=1))
    job = await create(replica.stub, priority=9, scheduled_for=later.scheduled_for)
    assert job.scheduled_for == later.scheduled_for
