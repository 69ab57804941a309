"""A replica that leaves: its workers are told, and keep what they hold on another one."""

import asyncio
from uuid import uuid4

from grpc import StatusCode
from tests.support.job_calls import (
    HELD,
    acquire,
    complete,
    create,
    create_all,
    duration,
    heartbeat,
    spec,
    verdicts,
)
from tests.support.job_replicas import DRAIN_GRACE, JobReplica
from tests.support.lease_streams import lease_stream, until_total
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged

from taskforge.v1 import job_pb2
from taskforge_core.database import Database


async def test_streams_are_told_to_go_elsewhere_and_then_end(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    clock = asyncio.get_running_loop().time
    async with lease_stream(replica.stub) as one, lease_stream(replica.stub) as two:
        await replica.until_taking(2)
        await create(replica.stub)
        await until_total(1, one, two)
        started = clock()
        draining = asyncio.create_task(replica.drain())
        for stream in (one, two):
            refusal = await expect_error(stream.end(), StatusCode.UNAVAILABLE, "SERVER_DRAINING")
            assert stream.drains == 1
            assert refusal.retry_info is not None
            assert stream.lost == []
        await draining
        # It did not wait until its grace was over.
        assert clock() - started < DRAIN_GRACE.total_seconds() / 2


async def test_leases_stay_valid_on_another_replica_with_the_same_session(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(4)])
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id, max_in_flight=2) as old:
        await old.until_leases(2)
        await replica.drain()
        await expect_error(old.end(), StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    answer = await heartbeat(other_replica.stub, session_id, 1, old.tokens)
    assert verdicts(answer) == [HELD] * 2
    async with lease_stream(other_replica.stub, session_id, max_in_flight=3) as new:
        await new.until_leases(1)
        assert new.payloads == ["2"]
        for token in old.tokens:
            assert await complete(other_replica.stub, token) == job_pb2.JOB_STATUS_SUCCEEDED
        await new.until_leases(2)
        assert new.payloads == ["2", "3"]
        assert new.lost == []


async def test_a_leaving_replica_opens_no_lease_call_and_serves_all_others(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(replica.stub)
    [held] = await acquire(replica.stub)
    waiting = asyncio.create_task(acquire(replica.stub, wait=duration(seconds=60)))

    await replica.until_taking(1)
    await replica.server.drain()
    await expect_error(waiting, StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    async with unchanged(database.hot):
        await expect_error(acquire(replica.stub), StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        async with lease_stream(replica.stub) as stream:
            await expect_error(stream.end(), StatusCode.UNAVAILABLE, "SERVER_DRAINING")
            assert stream.leases == []
    await create(replica.stub)
    assert await complete(replica.stub, held.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED


async def test_what_was_waiting_in_a_leaving_replica_is_left_to_the_others(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with lease_stream(replica.stub) as stream:
        await create(replica.stub)
        await stream.until_leases(1)
        await replica.drain()
        job = await create(other_replica.stub)
        [lease] = await acquire(other_replica.stub)
        assert lease.job.id == job.id
