"""Queues with limits as workers see them: exact over replicas, and refilled at once."""

import asyncio
from uuid import uuid4

import pytest
from tests.support.job_calls import (
    acquire,
    cancel,
    complete,
    create_all,
    duration,
    fail,
    release,
    settle,
    snoozed,
    spec,
    succeeded,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import LeaseStream, lease_stream, until_total
from tests.support.leases import miscounts
from tests.support.queue_calls import make, update
from tests.support.rows import insert_queue
from tests.support.start_log import Rules, install
from tests.support.stubs import JobStub, QueueStub
from tests.support.waiting import eventually

from scheduler_service.timing_out import TimeoutEnforcer
from taskforge.v1 import queue_pb2
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier

told_only = pytest.mark.usefixtures("no_polls")
"""Only a wake-up can be what made it happen."""


async def processing(database: Database) -> int:
    count: int = await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs WHERE status = 3")
    return count


@told_only
async def test_a_slot_that_is_freed_at_one_replica_is_refilled_at_the_other(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    """The worker that frees it wants no more itself, and nobody else counts its leases."""
    await insert_queue(database.hot, "emails", max_concurrent_jobs=5)
    await create_all(replica.stub, [spec(max_attempts=1)] * 12)
    held = await acquire(replica.stub)
    assert len(held) == 5
    async with lease_stream(other_replica.stub) as stream:
        await other_replica.until_taking(1)
        await complete(replica.stub, held[0].lease_token)
        await stream.until_leases(1)
        await fail(replica.stub, held[1].lease_token, retryable=False)
        await stream.until_leases(2)
        await settle(replica.stub, [snoozed(held[2].lease_token, duration(hours=1))])
        await stream.until_leases(3)
        await complete(replica.stub, held[3].lease_token)
        await stream.until_leases(4)
        await settle(replica.stub, [succeeded(held[4].lease_token)])
        await stream.until_leases(5)
        # And those that the stream's own replica counts, settled elsewhere.
        await complete(replica.stub, stream.tokens[0])
        await stream.until_leases(6)
        assert await processing(database) == 5


@told_only
async def test_a_slot_that_a_timeout_frees_is_refilled(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails", max_concurrent_jobs=1)
    await create_all(replica.stub, [spec()] * 2)
    [held] = await acquire(replica.stub)
    async with lease_stream(replica.stub) as stream:
        await replica.until_taking(1)
        await database.hot.execute(
            "UPDATE taskforge.jobs SET timeout_at = clock_timestamp() WHERE id = $1", held.job.id
        )
        notifier = Notifier(database.hot, "scheduler")
        await TimeoutEnforcer(database.hot, notifier).run_once()
        [lease] = await stream.until_leases(1)
        assert lease.job.id != held.job.id
        await notifier.flushed()


@told_only
async def test_a_raised_limit_wakes_the_streams_and_a_lower_one_binds_the_next_claim(
    replica: JobReplica, other_replica: JobReplica, queue_stub: QueueStub, database: Database
) -> None:
    await make(queue_stub, max_concurrent_jobs=2)
    async with (
        lease_stream(replica.stub) as one,
        lease_stream(other_replica.stub) as two,
    ):
        await replica.until_taking(1)
        await other_replica.until_taking(1)
        await create_all(replica.stub, [spec()] * 12)
        await until_total(2, one, two)
        await limit(queue_stub, 5)
        await until_total(5, one, two)
        assert await processing(database) == 5
        await limit(queue_stub, 4)
        for token in (one.tokens + two.tokens)[:2]:
            await complete(replica.stub, token)
        await until_total(6, one, two)
        for each in (replica, other_replica):
            await each.dispatch()
        assert await processing(database) == 4
        assert len(one.leases) + len(two.leases) == 6


async def limit(queue_stub: QueueStub, max_concurrent_jobs: int) -> None:
    settings = queue_pb2.QueueSettings(max_concurrent_jobs=max_concurrent_jobs)
    await queue_stub.UpdateQueue(
        update("emails", "settings.max_concurrent_jobs", settings=settings)
    )


async def test_a_full_queue_of_high_priority_does_not_keep_workers_from_others(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails", priority=9, max_concurrent_jobs=1)
    await insert_queue(database.hot, "letters")
    await create_all(job_stub, [spec(priority=9)] * 40)
    await create_all(job_stub, [spec("letters", payload=str(n)) for n in range(3)])
    async with lease_stream(job_stub, max_in_flight=4) as stream:
        await stream.until_leases(4)
        assert stream.payloads == ["{}", "0", "1", "2"]


async def test_a_rate_holds_over_replicas_streams_and_calls(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await install(database.hot)
    queue_id = await insert_queue(database.hot, "emails")
    rules = Rules(database.hot, queue_id)
    await rules.set(None, 9)
    async with lease_stream(replica.stub) as one, lease_stream(other_replica.stub) as two:
        await replica.until_taking(1)
        await other_replica.until_taking(1)
        await create_all(replica.stub, [spec()] * 40)
        await until_total(9, one, two)
        for token in one.tokens + two.tokens:
            await complete(replica.stub, token)
        for each in (replica, other_replica):
            await each.dispatch()
            assert await acquire(each.stub) == []
        assert await rules.check() == 9


async def test_a_limit_holds_while_workers_of_two_replicas_settle_all_the_time(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    """Streams and calls at once, checked on the log of a trigger; nothing is left over."""
    await install(database.hot)
    queue_id = await insert_queue(database.hot, "emails")
    rules = Rules(database.hot, queue_id)
    await rules.set(7, None)
    ids = await create_all(replica.stub, [spec()] * 200)
    done: list[str] = []

    def is_all_done() -> bool:
        return len(done) >= len(ids)

    async def work(stub: JobStub) -> None:
        session_id = str(uuid4())
        while not is_all_done():
            leases = await acquire(
                stub, session_id, max_in_flight=3, wait=duration(milliseconds=200)
            )
            for lease in leases:
                await complete(stub, lease.lease_token)
                done.append(lease.job.id)

    async def follow(stub: JobStub, stream: LeaseStream) -> None:
        settled = 0

        async def have_more() -> bool:
            return len(stream.leases) > settled or is_all_done()

        while not is_all_done():
            await eventually(have_more, "more leases come, or all is done")
            for lease in stream.leases[settled:]:
                await complete(stub, lease.lease_token)
                settled += 1
                done.append(lease.job.id)

    stubs = [replica.stub, other_replica.stub]
    async with (
        lease_stream(stubs[0], max_in_flight=4) as one,
        lease_stream(stubs[1], max_in_flight=4) as two,
        lease_stream(stubs[1], max_in_flight=1, queues=["emails"]) as three,
    ):
        await asyncio.gather(
            work(stubs[0]),
            work(stubs[1]),
            follow(stubs[1], one),
            follow(stubs[0], two),
            follow(stubs[1], three),
        )
    assert sorted(done) == sorted(ids)
    assert await rules.check() == len(ids)
    assert await miscounts(database.hot) == []


async def test_a_cancelled_job_makes_room_when_it_ends_and_not_before(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails", max_concurrent_jobs=1)
    await create_all(job_stub, [spec()] * 2)
    [held] = await acquire(job_stub)
    await cancel(job_stub, held.job.id, interrupt_running=True)
    assert await acquire(job_stub) == []
    await release(job_stub, held.lease_token)
    assert len(await acquire(job_stub)) == 1
