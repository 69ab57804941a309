"""Two replicas over one database: what comes to one of them is known to the other."""

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    cancel,
    complete,
    create,
    create_all,
    duration,
    fail,
    heartbeat,
    release,
    retry,
    settle,
    spec,
    succeeded,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream, until_total
from tests.support.leases import miscounts
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_project, insert_queue
from tests.support.stubs import JobStub, QueueStub

from taskforge.v1 import job_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database

told_only = pytest.mark.usefixtures("no_polls")
"""Only a notification between the replicas can be what made it happen."""


@told_only
async def test_a_job_made_at_one_replica_comes_to_a_worker_at_the_other(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with lease_stream(other_stub) as stream:
        # The first may be there before the stream; the second comes while it waits.
        await create(job_stub)
        await stream.until_leases(1)
        await create(job_stub)
        await stream.until_leases(2)
        await create_all(job_stub, [spec()] * 3)
        await stream.until_leases(5)


@told_only
async def test_a_call_that_waits_at_one_replica_gets_a_job_made_at_the_other(
    job_stub: JobStub, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    for _ in range(3):
        call = asyncio.create_task(acquire(other_replica.stub, wait=duration(seconds=60)))
        await create(job_stub)
        async with asyncio.timeout(10):
            assert len(await call) == 1


@told_only
async def test_a_job_that_a_replica_cannot_serve_itself_is_told_to_the_other(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with lease_stream(job_stub, max_in_flight=1) as near:
        await create(job_stub)
        await near.until_leases(1)
        async with lease_stream(other_stub, max_in_flight=3) as far:
            await create(job_stub)
            await far.until_leases(1)
            # One that fills the near worker and leaves something over.
            await complete(job_stub, near.tokens[0])
            await create_all(job_stub, [spec(), spec()])
            await near.until_leases(2)
            await far.until_leases(2)


NOT_FOR_NEAR: list[dict[str, Any]] = [
    {"job_types": ["other"]},
    {"project_id": "other"},
    {"max_message_bytes": 65_536},
    {"max_in_flight_bytes": 1000},
]
"""Streams of all queues, each of which cannot take the job that is made beside it."""


@told_only
@pytest.mark.parametrize("subscription", NOT_FOR_NEAR, ids=lambda fields: next(iter(fields)))
async def test_a_job_that_is_not_for_the_workers_of_its_replica_is_told_to_the_other(
    replica: JobReplica,
    other_replica: JobReplica,
    database: Database,
    subscription: dict[str, Any],
) -> None:
    await insert_queue(database.hot, "emails")
    if "project_id" in subscription:
        subscription = {"project_id": str(await insert_project(database.hot))}
    async with lease_stream(replica.stub, **subscription) as near:
        if "max_in_flight_bytes" in subscription:
            await create(replica.stub)
            await near.until_leases(1)
        had = len(near.leases)
        await replica.until_taking(1)
        async with lease_stream(other_replica.stub, job_types=["send"]) as far:
            await other_replica.until_taking(1)
            await other_replica.dispatch()
            for count in (1, 2):
                await create(replica.stub, payload=f'"{"x" * 70_000}"')
                await far.until_leases(count)
        assert len(near.leases) == had


@told_only
async def test_a_job_given_back_is_told_to_the_other_replica_whatever_its_type(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(replica.stub)
    [held] = await acquire(replica.stub)
    async with (
        lease_stream(replica.stub, job_types=["other"]),
        lease_stream(other_replica.stub, job_types=["send"]) as far,
    ):
        await replica.until_taking(1)
        await other_replica.until_taking(1)
        await other_replica.dispatch()
        await release(replica.stub, held.lease_token)
        [again] = await far.until_leases(1)
        await fail(replica.stub, again.lease_token, retryable=False)
        await retry(replica.stub, again.job.id)
        await far.until_leases(2)


@told_only
async def test_a_worker_for_other_types_does_not_swallow_the_word(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    """Where a job was made there is a stream of its queue that wants jobs, but not this one."""
    await insert_queue(database.hot, "emails")
    async with (
        lease_stream(replica.stub, job_types=["print"]) as near,
        lease_stream(replica.stub, max_in_flight_bytes=1) as narrow,
        lease_stream(other_replica.stub, job_types=["send"]) as far,
    ):
        await replica.until_taking(2)
        await other_replica.until_taking(1)
        await create(replica.stub, job_type="shred")
        await narrow.until_leases(1)
        for count in range(1, 4):
            await create(replica.stub, job_type="send")
            await far.until_leases(count)
        assert near.leases == []


@told_only
async def test_a_waiting_call_learns_of_a_slot_that_was_freed_elsewhere(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    """Its leases went out without a stream, so nobody tells: it looks itself each second."""
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(2)])
    session_id = str(uuid4())
    [held] = await acquire(replica.stub, session_id, max_in_flight=1)
    waiting = acquire(replica.stub, session_id, max_in_flight=1, wait=duration(seconds=60))
    call = asyncio.create_task(waiting)
    await replica.until_taking(1)
    await complete(other_replica.stub, held.lease_token)
    async with asyncio.timeout(10):
        [lease] = await call
    assert lease.job.payload == "1"


@told_only
async def test_a_slot_freed_through_one_replica_is_refilled_on_the_others_stream(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(payload=str(n)) for n in range(5)])
    async with lease_stream(job_stub, max_in_flight=1) as stream:
        await stream.until_leases(1)
        await complete(other_stub, stream.tokens[0])
        await stream.until_leases(2)
        await settle(other_stub, [succeeded(stream.tokens[1])])
        await stream.until_leases(3)
        await other_stub.FailJob(pb.FailJobRequest(lease_token=stream.tokens[2]))
        await stream.until_leases(4)
        await release(other_stub, stream.tokens[3])
        await stream.until_leases(5)
        assert stream.payloads == ["0", "1", "2", "3", "3"]
        assert stream.lost == []


@told_only
async def test_a_job_given_back_at_one_replica_comes_to_a_worker_at_the_other(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(job_stub)
    [held] = await acquire(job_stub)
    async with lease_stream(other_stub) as stream:
        await create(other_stub)
        await stream.until_leases(1)
        await release(job_stub, held.lease_token)
        await stream.until_leases(2)
        assert stream.leases[1].job.id == held.job.id


@told_only
async def test_a_cancellation_at_one_replica_is_told_on_the_others_stream(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create(job_stub)
    async with lease_stream(job_stub) as stream:
        [lease] = await stream.until_leases(1)
        await cancel(other_stub, lease.job.id, interrupt_running=True)
        await stream.until(lambda stream: bool(stream.cancelled), "the cancellation is told")
        assert stream.cancelled == [lease.lease_token]


@told_only
async def test_resuming_a_queue_wakes_the_streams_of_all_replicas(
    replica: JobReplica, other_replica: JobReplica, queue_stub: QueueStub
) -> None:
    await make(queue_stub)
    async with (
        lease_stream(replica.stub, max_in_flight=1) as one,
        lease_stream(other_replica.stub, max_in_flight=1) as two,
    ):
        await create_all(replica.stub, [spec()] * 2)
        await one.until_leases(1)
        await two.until_leases(1)
        await queue_stub.PauseQueue(queue_service_pb2.PauseQueueRequest(queue="emails"))
        for stream in (one, two):
            await release(replica.stub, stream.tokens[0])
        assert await acquire(replica.stub) == []
        await queue_stub.ResumeQueue(queue_service_pb2.ResumeQueueRequest(queue="emails"))
        await one.until_leases(2)
        await two.until_leases(2)


async def test_a_session_moves_to_another_replica_with_what_it_holds(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(payload=str(n)) for n in range(6)])
    session_id = str(uuid4())
    async with lease_stream(job_stub, session_id, max_in_flight=2) as old:
        await old.until_leases(2)
        async with lease_stream(other_stub, session_id, max_in_flight=3) as new:
            refusal = await expect_error(old.end(), StatusCode.ABORTED, "STREAM_REPLACED")
            assert refusal.metadata == {"session_id": session_id}
            await new.until_leases(1)
            assert new.payloads == ["2"]
            answer = await heartbeat(other_stub, session_id, 1, old.tokens + new.tokens)
            assert {verdict.verdict for verdict in answer.verdicts} == {
                pb.LeaseVerdict.VERDICT_HELD
            }
            assert not answer.reconnect
            # What the old stream delivered makes room on the new one, wherever it is settled.
            await complete(other_stub, old.tokens[0])
            await new.until_leases(2)
            await complete(job_stub, old.tokens[1])
            await new.until_leases(3)
            assert new.payloads == ["2", "3", "4"]
            assert new.lost == []


async def test_a_stream_that_was_not_told_of_its_replacement_takes_no_job(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id) as old:
        await replica.until_taking(1)
        await replica.server.listener.stop()
        async with lease_stream(other_replica.stub, session_id) as new:
            await other_replica.until_taking(1)
            job = await create(replica.stub)
            await expect_error(old.end(), StatusCode.ABORTED, "STREAM_REPLACED")
            [lease] = await new.until_leases(1)
            assert (lease.job.id, lease.job.attempt_count) == (job.id, 1)
            assert old.leases == []


async def test_a_poll_makes_good_for_notifications_that_are_lost(
    job_stub: JobStub, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with lease_stream(other_replica.stub) as stream:
        await create(job_stub)
        await stream.until_leases(1)
        await other_replica.server.listener.stop()
        await create(job_stub)
        await stream.until_leases(2)


async def test_no_job_is_leased_twice_however_many_ask_at_once(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await insert_queue(database.hot, "letters")
    await create_all(replica.stub, [spec(("emails", "letters")[n % 2]) for n in range(600)])
    leased: list[str] = []

    async def work(stub: JobStub) -> None:
        session_id = str(uuid4())
        while leases := await acquire(stub, session_id, max_in_flight=7):
            leased.extend(lease.job.id for lease in leases)
            results = await settle(stub, [succeeded(lease.lease_token) for lease in leases])
            assert {result.status for result in results} == {job_pb2.JOB_STATUS_SUCCEEDED}

    async with (
        lease_stream(replica.stub, max_in_flight=50) as one,
        lease_stream(other_replica.stub, max_in_flight=50) as two,
    ):
        await asyncio.gather(*(work(each.stub) for each in (replica, other_replica) * 3))
        await until_total(600 - len(leased), one, two)
        leased += [lease.job.id for stream in (one, two) for lease in stream.leases]
    assert len(leased) == 600
    assert Counter(leased).most_common(1)[0][1] == 1
    assert await miscounts(database.hot) == []
