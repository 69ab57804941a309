"""LeaseJobs: what a stream gets, how it is replaced, and what becomes of what it did not take."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    complete,
    create,
    create_all,
    duration,
    get,
    payloads,
    span,
    spec,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream, until_total
from tests.support.leases import miscounts
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub
from tests.support.waiting import eventually

from job_service import opening
from job_service.queries import open_call
from taskforge.v1 import job_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database

if TYPE_CHECKING:
    import grpc

    UnreadStream = grpc.aio.UnaryStreamCall[pb.LeaseJobsRequest, pb.LeaseJobsResponse]


async def processing(database: Database) -> int:
    count: int = await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs WHERE status = 3")
    return count


async def test_a_lease_holds_the_job_and_when_it_expires(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    made = await create(job_stub, payload="[1]", labels={"a": "1"}, timeout=duration(minutes=1))
    async with lease_stream(
        job_stub, worker_id="host-1", lease_duration=duration(seconds=10)
    ) as stream:
        [lease] = await stream.until_leases(1)
    job = lease.job
    assert 1 <= len(lease.lease_token) <= 128
    assert job.status == job_pb2.JOB_STATUS_PROCESSING
    assert job.attempt_count == 1
    assert job.worker_id == "host-1"
    assert span(job.started_at, job.timeout_at) == Duration(seconds=60).ToTimedelta()
    assert Duration(seconds=9).ToTimedelta() < span(job.started_at, lease.expires_at)
    assert span(job.started_at, lease.expires_at) <= Duration(seconds=10).ToTimedelta()
    assert await get(job_stub, made.id) == job


async def test_leases_last_thirty_seconds_unless_asked_otherwise(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec()] * 2)
    async with lease_stream(job_stub, max_in_flight=1) as stream:
        [streamed] = await stream.until_leases(1)
    [acquired] = await acquire(job_stub)
    for lease in (streamed, acquired):
        lasts = span(lease.job.started_at, lease.expires_at).total_seconds()
        assert 29 < lasts <= 30


async def test_a_waiting_stream_gets_each_job_as_it_comes(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with lease_stream(job_stub) as stream:
        for n in range(5):
            await create(job_stub, payload=str(n))
            await stream.until_leases(n + 1)
        assert stream.payloads == ["0", "1", "2", "3", "4"]


async def test_a_stream_of_all_queues_covers_those_made_later(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await make(queue_stub, "old")
    async with lease_stream(job_stub) as stream:
        await create(job_stub, "old")
        await stream.until_leases(1)
        await make(queue_stub, "new")
        await create(job_stub, "new", payload='"new"')
        await stream.until_leases(2)
        assert stream.payloads == ["{}", '"new"']


async def test_a_stream_of_named_queues_gets_nothing_from_others(
    job_stub: JobStub, queue_stub: QueueStub, replica: JobReplica
) -> None:
    await make(queue_stub, "old")
    async with lease_stream(job_stub, queues=["old"]) as stream:
        await create(job_stub, "old")
        await stream.until_leases(1)
        await make(queue_stub, "new")
        await create(job_stub, "new")
        await replica.dispatch()
        await create(job_stub, "old", payload='"old"')
        await stream.until_leases(2)
        assert stream.payloads == ["{}", '"old"']


@pytest.mark.usefixtures("no_polls")
async def test_a_stream_of_a_named_queue_takes_from_a_new_queue_of_that_name(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    """Its worker need not know that the one that it named was deleted meanwhile."""
    await make(queue_stub, "emails")
    async with lease_stream(job_stub, queues=["emails"]) as stream:
        await create(job_stub)
        [lease] = await stream.until_leases(1)
        await complete(job_stub, lease.lease_token)
        await queue_stub.DeleteQueue(queue_service_pb2.DeleteQueueRequest(queue="emails"))
        await make(queue_stub, "emails")
        await create(job_stub, payload='"again"')
        await stream.until_leases(2)
        assert stream.payloads == ["{}", '"again"']


async def test_a_stream_for_a_queue_that_is_not_there_is_refused(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with unchanged(database.hot):
        for missing in ("letters", str(uuid4())):
            async with lease_stream(job_stub, queues=["emails", missing]) as stream:
                refusal = await expect_error(stream.end(), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
                assert refusal.metadata == {"queue": missing}


async def test_two_streams_of_one_subscription_share_alike(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with lease_stream(replica.stub) as one, lease_stream(replica.stub) as two:
        await replica.until_taking(2)
        # A claim that began before the second stream was there is over then.
        await replica.dispatch()
        await create_all(replica.stub, [spec(payload=str(n)) for n in range(40)])
        await one.until_leases(20)
        await two.until_leases(20)
        assert sorted([one.payloads, two.payloads]) == sorted(
            [[str(n) for n in range(0, 40, 2)], [str(n) for n in range(1, 40, 2)]]
        )


async def test_single_jobs_come_to_streams_of_one_subscription_in_turn(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with lease_stream(replica.stub) as one, lease_stream(replica.stub) as two:
        await replica.until_taking(2)
        for n in range(20):
            await create(replica.stub)
            await until_total(n + 1, one, two)
        # Not exactly alike: a look that finds nothing takes a turn as well.
        assert min(len(one.leases), len(two.leases)) >= 4


# -- One stream a session ------------------------------------------------------------------------


async def test_a_second_stream_of_a_session_replaces_the_first_and_keeps_what_it_holds(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(payload=str(n)) for n in range(5)])
    session_id = str(uuid4())
    async with lease_stream(job_stub, session_id, max_in_flight=2) as first:
        held = await first.until_leases(2)
        async with lease_stream(job_stub, session_id, max_in_flight=3) as second:
            refusal = await expect_error(first.end(), StatusCode.ABORTED, "STREAM_REPLACED")
            assert refusal.metadata == {"session_id": session_id}
            await second.until_leases(1)
            # What the first one delivered counts, and is settled by the second one's owner.
            assert second.payloads == ["2"]
            assert await complete(job_stub, held[0].lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
            await second.until_leases(2)
            assert second.payloads == ["2", "3"]
            assert second.lost == []


async def test_of_streams_opened_at_once_the_last_one_stays(
    replica: JobReplica, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not none of them: each is noted in the order in which it became the session's."""
    at_once = most_at_once = 0

    async def observed(*args: Any) -> bool:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        try:
            return await open_call(*args)
        finally:
            at_once -= 1

    monkeypatch.setattr(opening, "open_call", observed)
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(lease_stream(replica.stub, session_id))
            for _ in range(5)
        ]

        async def one_is_left() -> bool:
            return sum(stream.has_ended for stream in streams) == 4

        await eventually(one_is_left, "all streams but one have ended")
        assert most_at_once == 1
        await create(replica.stub)
        await until_total(1, *streams)


async def test_a_session_may_come_back_for_less_than_it_holds(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(5)])
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id, max_in_flight=3) as old:
        held = await old.until_leases(3)
    await replica.until_taking(0)
    async with lease_stream(replica.stub, session_id, max_in_flight=1) as new:
        await replica.until_taking(1)
        for lease in held[:2]:
            await complete(replica.stub, lease.lease_token)
        await replica.dispatch()
        assert await processing(database) == 1
        await complete(replica.stub, held[2].lease_token)
        await new.until_leases(1)
        assert new.payloads == ["3"]


async def test_the_leases_of_a_broken_stream_stay_until_they_expire(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(payload=str(n)) for n in range(3)])
    async with lease_stream(job_stub, max_in_flight=2) as stream:
        leases = await stream.until_leases(2)
    assert payloads(await acquire(job_stub)) == ["2"]
    for lease in leases:
        assert await complete(job_stub, lease.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED


async def open_unread(stub: JobStub, database: Database, session_id: str) -> "UnreadStream":
    """A stream that nobody reads, with far more leased to it than a connection holds: 24 jobs."""
    await insert_queue(database.hot, "emails")
    large = spec(payload=f'"{"x" * 250_000}"')
    for _ in range(2):
        await create_all(stub, [large] * 12)
    request = pb.LeaseJobsRequest(session_id=session_id, max_in_flight=24)
    call: UnreadStream = stub.LeaseJobs(request)

    async def all_are_leased() -> bool:
        return await processing(database) == 24

    await eventually(all_are_leased, "all jobs are leased")
    return call


async def test_what_could_not_be_sent_is_ready_again_when_the_client_goes_away(
    job_stub: JobStub, database: Database
) -> None:
    unread = await open_unread(job_stub, database, str(uuid4()))
    unread.cancel()

    async def some_are_back() -> bool:
        return await processing(database) < 24

    await eventually(some_are_back, "what was not sent is back")
    rows = await database.hot.fetch(
        "SELECT DISTINCT status, attempt_count FROM taskforge.jobs WHERE status <> 3"
    )
    assert [tuple(row) for row in rows] == [(1, 0)]
    assert await miscounts(database.hot) == []


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same replica", "other replica"])
async def test_what_a_replaced_stream_could_not_send_comes_on_the_new_one_at_once(
    job_stub: JobStub, other_stub: JobStub, database: Database, elsewhere: bool
) -> None:
    session_id = str(uuid4())
    unread = await open_unread(job_stub, database, session_id)
    newer = other_stub if elsewhere else job_stub
    async with lease_stream(newer, session_id, max_in_flight=24) as stream:
        # A write that is stuck is given up after 10 s otherwise.
        async with asyncio.timeout(5):
            await stream.until_leases(1)
        assert {lease.job.attempt_count for lease in stream.leases} == {1}
    unread.cancel()
