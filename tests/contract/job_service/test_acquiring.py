"""AcquireJobs: one call for jobs, for clients that cannot hold a stream."""

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

import grpc
from grpc import StatusCode
from tests.support.job_calls import (
    Lease,
    acquire,
    complete,
    create,
    create_all,
    duration,
    payloads,
    spec,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub
from tests.support.waiting import eventually

from taskforge.v1 import job_pb2
from taskforge_core.database import Database


def start(call: Coroutine[Any, Any, list[Lease]]) -> "asyncio.Task[list[Lease]]":
    return asyncio.create_task(call)


async def test_without_a_wait_the_answer_comes_at_once(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    assert await acquire(job_stub) == []
    assert await acquire(job_stub, queues=["emails"], job_types=["send"]) == []


async def test_a_call_waits_for_a_first_job(replica: JobReplica, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    call = start(acquire(replica.stub, wait=duration(seconds=60)))
    await replica.until_taking(1)
    job = await create(replica.stub)
    async with asyncio.timeout(5):
        [lease] = await call
    assert lease.job.id == job.id


async def test_a_wait_that_is_over_gets_nothing(job_stub: JobStub, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    clock = asyncio.get_running_loop().time
    started = clock()
    assert await acquire(job_stub, wait=duration(milliseconds=150)) == []
    assert 0.15 <= clock() - started < 5


async def test_what_earlier_calls_hold_counts(job_stub: JobStub, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(payload=str(n)) for n in range(6)])
    session_id = str(uuid4())
    first = await acquire(job_stub, session_id, max_in_flight=2)
    assert payloads(first) == ["0", "1"]
    assert await acquire(job_stub, session_id, max_in_flight=2) == []
    assert await acquire(job_stub, session_id, max_in_flight=1) == []
    assert payloads(await acquire(job_stub, session_id, max_in_flight=3)) == ["2"]
    await complete(job_stub, first[0].lease_token)
    assert payloads(await acquire(job_stub, session_id, max_in_flight=3)) == ["3"]


async def test_a_call_waits_for_a_slot_as_well(replica: JobReplica, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec(payload=str(n)) for n in range(2)])
    session_id = str(uuid4())
    [held] = await acquire(replica.stub, session_id, max_in_flight=1)
    waiting = acquire(replica.stub, session_id, max_in_flight=1, wait=duration(seconds=60))
    call = start(waiting)
    await replica.until_taking(1)
    await complete(replica.stub, held.lease_token)
    async with asyncio.timeout(5):
        assert payloads(await call) == ["1"]


async def test_calls_of_one_session_at_once_never_hold_more_than_it_may(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(replica.stub, [spec()] * 100)
    session_id = str(uuid4())
    outcomes = await asyncio.gather(
        *(
            acquire(each.stub, session_id, max_in_flight=5)
            for each in (replica, other_replica) * 15
        ),
        return_exceptions=True,
    )
    leases = []
    for outcome in outcomes:
        if isinstance(outcome, list):
            leases += outcome
        else:
            assert isinstance(outcome, grpc.aio.AioRpcError)
            assert outcome.code() is StatusCode.ABORTED
    assert len({lease.lease_token for lease in leases}) == len(leases) <= 5

    async def only_those_are_held() -> bool:
        held = await database.hot.fetchval(
            "SELECT count(*) FROM taskforge.jobs WHERE session_id = $1", session_id
        )
        return bool(held == len(leases))

    await eventually(only_those_are_held, "what was not answered is given back")
    assert await miscounts(database.hot) == []


async def test_a_newer_call_of_the_session_takes_the_place_of_a_waiting_one(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    for newer in (replica, other_replica):
        call = start(acquire(replica.stub, session_id, wait=duration(seconds=60)))
        await replica.until_taking(1)
        assert await acquire(newer.stub, session_id) == []
        refusal = await expect_error(call, StatusCode.ABORTED, "STREAM_REPLACED")
        assert refusal.metadata == {"session_id": session_id}
    call = start(acquire(replica.stub, session_id, wait=duration(seconds=60)))
    await replica.until_taking(1)
    async with lease_stream(other_replica.stub, session_id) as stream:
        await expect_error(call, StatusCode.ABORTED, "STREAM_REPLACED")
        await create(replica.stub)
        await stream.until_leases(1)


async def test_a_session_with_a_stream_cannot_acquire_until_the_stream_has_ended(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id) as stream:
        await create(replica.stub)
        await stream.until_leases(1)
        await create(replica.stub)
        await stream.until_leases(2)
        async with unchanged(database.hot):
            for each in (replica, other_replica):
                refusal = await expect_error(
                    acquire(each.stub, session_id),
                    StatusCode.FAILED_PRECONDITION,
                    "SESSION_HAS_STREAM",
                )
                assert refusal.metadata == {"session_id": session_id}
                [violation] = refusal.preconditions
                assert violation.subject == f"sessions/{session_id}"
        # The stream goes on as before.
        await create(replica.stub)
        await stream.until_leases(3)
    await create(replica.stub, payload='"after"')

    async def stream_has_ended() -> bool:
        is_open = await database.hot.fetchval(
            "SELECT call_is_open FROM taskforge.sessions WHERE session_id = $1", session_id
        )
        return not is_open

    await eventually(stream_has_ended, "the end of the stream is known")
    assert payloads(await acquire(other_replica.stub, session_id)) == ['"after"']


async def test_a_stream_of_a_server_that_died_does_not_keep_a_session_from_acquiring(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    session_id = str(uuid4())
    async with lease_stream(replica.stub, session_id) as stream:
        await create(replica.stub)
        await stream.until_leases(1)
        await replica.server.replica._loop.stop()
        await database.hot.execute(
            "UPDATE taskforge.servers SET alive_until = clock_timestamp() WHERE server_id = $1",
            replica.server.server_id,
        )
        assert await acquire(other_replica.stub, session_id) == []
        await expect_error(stream.end(), StatusCode.ABORTED, "STREAM_REPLACED")


async def test_a_call_for_a_queue_that_is_not_there_is_refused(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with unchanged(database.hot):
        for missing in ("letters", str(uuid4())):
            refusal = await expect_error(
                acquire(job_stub, queues=["emails", missing]),
                StatusCode.NOT_FOUND,
                "QUEUE_NOT_FOUND",
            )
            assert refusal.metadata == {"queue": missing}


async def test_a_call_that_was_given_up_takes_no_job(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    call = start(acquire(replica.stub, wait=duration(seconds=60)))
    await replica.until_taking(1)
    call.cancel()
    await replica.until_taking(0)
    job = await create(replica.stub)
    [lease] = await acquire(replica.stub)
    assert lease.job.id == job.id
    assert await complete(replica.stub, lease.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
