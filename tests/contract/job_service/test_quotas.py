"""How many lease streams a project may have open, and how large its requests may be."""

from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    acquire_one,
    create,
    invoke,
    spec,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.leases import insert_server
from tests.support.quotas import Client, allow
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub
from tests.support.waiting import eventually

from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database

# -- Streams ------------------------------------------------------------------------------------


async def expect_too_many(stub: JobStub, limit: int) -> None:
    refusal = await expect_error(
        invoke(stub, pb.LeaseJobsRequest(session_id=str(uuid4()), max_in_flight=1)),
        StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_LEASE_STREAMS",
    )
    assert refusal.metadata == {"limit": str(limit)}


async def test_a_stream_too_many_is_refused_at_either_replica(
    acme: Client, other: Client, replicas: tuple[JobReplica, JobReplica], database: Database
) -> None:
    first, second = replicas
    await allow(database, acme, max_lease_streams=2)
    async with lease_stream(acme.first), lease_stream(acme.second):
        await first.until_taking(1)
        await second.until_taking(1)
        for stub in acme.both:
            async with unchanged(database.hot):
                await expect_too_many(stub, 2)
        # Neither other calls nor other tenants are concerned.
        assert await acquire(acme.first) == []
        await create(other.first)
        async with lease_stream(other.first) as stream:
            await stream.until_leases(1)

    async def has_room() -> bool:
        async with lease_stream(acme.second) as stream:
            await create(acme.first)
            try:
                await stream.until_leases(1)
            except grpc.aio.AioRpcError:
                return False
        return True

    await eventually(has_room, "it is noted that the streams have ended")


async def test_streams_opened_at_once_are_no_more_than_may_be(
    acme: Client, replicas: tuple[JobReplica, JobReplica], database: Database
) -> None:
    await allow(database, acme, max_lease_streams=3)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(lease_stream(stub))
            for _ in range(10)
            for stub in acme.both
        ]

        async def are_taking() -> bool:
            groups = [g for each in replicas for g in each.server.dispatcher.groups()]
            ended = sum(stream.has_ended for stream in streams)
            return (sum(len(group.demands) for group in groups), ended) == (3, len(streams) - 3)

        await eventually(are_taking, "three take jobs and the others are refused")


async def test_a_session_may_always_open_its_own_stream_anew(
    acme: Client, replicas: tuple[JobReplica, JobReplica], database: Database
) -> None:
    await allow(database, acme, max_lease_streams=1)
    session_id = str(uuid4())
    async with lease_stream(acme.first, session_id) as stream:
        await replicas[0].until_taking(1)
        async with lease_stream(acme.second, session_id):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.end()
            assert caught.value.code() is StatusCode.ABORTED
            await replicas[1].until_taking(1)
            await expect_too_many(acme.first, 1)


async def test_streams_of_a_dead_replica_do_not_count(
    acme: Client, replicas: tuple[JobReplica, JobReplica], database: Database
) -> None:
    await allow(database, acme, max_lease_streams=1)
    dead = await insert_server(database.hot, alive_for=timedelta(seconds=-1))
    await database.hot.execute(
        "INSERT INTO taskforge.sessions (project_id, session_id, lease_duration, call_id,"
        " call_is_stream, call_is_open, server_id, max_in_flight)"
        " VALUES ($1, gen_random_uuid(), '30 s', gen_random_uuid(), true, true, $2, 1)",
        acme.tenant.project_id,
        dead,
    )
    async with lease_stream(acme.first):
        await replicas[0].until_taking(1)
        await expect_too_many(acme.second, 1)


# -- The size of requests -----------------------------------------------------------------------


def of_size(request: Any, field: Any, name: str, size: int) -> Any:
    """The request, its field made so long that it has exactly so many bytes."""
    setattr(field, name, '"' + "x" * size + '"')
    too_long = request.ByteSize() - size
    setattr(field, name, '"' + "x" * (size - too_long) + '"')
    assert request.ByteSize() == size
    return request


async def test_a_request_may_be_as_large_as_the_quota_and_no_larger(
    acme: Client, other: Client, database: Database
) -> None:
    limit = 2000
    await allow(database, acme, max_request_bytes=limit)
    await create(acme.first)
    lease = await acquire_one(acme.first)

    def requests(size: int) -> Iterable[Any]:
        single = pb.CreateJobRequest(job=spec())
        yield of_size(single, single.job, "payload", size)
        batch = pb.BatchCreateJobsRequest(jobs=[spec()])
        yield of_size(batch, batch.jobs[0], "payload", size)
        # The project of this one is known by its token alone.
        done = pb.CompleteJobRequest(lease_token=lease.lease_token)
        yield of_size(done, done, "result", size)

    for request in requests(limit + 1):
        async with unchanged(database.hot):
            refusal = await expect_error(
                invoke(acme.second, request), StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"
            )
        assert refusal.metadata == {"limit": "2000", "request_bytes": "2001"}
        assert refusal.retry_info is None
    types = [f"type {n} {'x' * 80}" for n in range(30)]
    stream = pb.LeaseJobsRequest(session_id=str(uuid4()), max_in_flight=1, job_types=types)
    async with unchanged(database.hot):
        await expect_error(
            invoke(acme.first, stream), StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"
        )
    for request in requests(limit):
        await invoke(acme.second, request)
    await create(other.first, payload='"' + "x" * limit + '"')
