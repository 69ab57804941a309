"""What a project may use, over two replicas that authenticate; and that nobody else notices."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    acquire_one,
    complete,
    create,
    create_all,
    fail,
    get,
    invoke,
    retry,
    spec,
)
from tests.support.job_replicas import JobReplica, job_replica, until_connected
from tests.support.lease_streams import lease_stream
from tests.support.leases import insert_server, miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub
from tests.support.tenants import Tenant, bearing_channel, insert_tenant
from tests.support.waiting import eventually

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_core.database import Database
from taskforge_core.settings import Settings


@dataclass
class Client:
    """A tenant's calls at both replicas."""

    tenant: Tenant
    first: JobStub
    second: JobStub

    @property
    def both(self) -> tuple[JobStub, JobStub]:
        return self.first, self.second


@pytest.fixture
async def replicas(
    settings: Settings, open_folder: Path
) -> AsyncIterator[tuple[JobReplica, JobReplica]]:
    guarded = settings.model_copy(update={"authentication": "on"})
    async with (
        job_replica(guarded, open_folder, "a") as first,
        job_replica(guarded, open_folder, "b") as second,
    ):
        await until_connected(first, second)
        yield first, second


async def client(
    stack: AsyncExitStack, database: Database, replicas: Iterable[JobReplica], name: str
) -> Client:
    tenant = await insert_tenant(database.hot, name)
    await insert_queue(database.hot, "emails", project_id=tenant.project_id)
    stubs = [
        JobServiceStub(
            await stack.enter_async_context(
                bearing_channel(replica.server.grpc.address, tenant.key)
            )
        )
        for replica in replicas
    ]
    return Client(tenant, *stubs)


@pytest.fixture
async def acme(
    database: Database, replicas: tuple[JobReplica, JobReplica]
) -> AsyncIterator[Client]:
    """The tenant that is limited."""
    async with AsyncExitStack() as stack:
        yield await client(stack, database, replicas, "acme")


@pytest.fixture
async def other(
    database: Database, replicas: tuple[JobReplica, JobReplica]
) -> AsyncIterator[Client]:
    """A tenant without quotas."""
    async with AsyncExitStack() as stack:
        yield await client(stack, database, replicas, "other")


async def allow(database: Database, of: Client, **quotas: int) -> None:
    """Set quotas of a project that no replica knows yet."""
    for name, value in quotas.items():
        await database.hot.execute(
            f"UPDATE taskforge.projects SET {name} = $1 WHERE id = $2",
            value,
            of.tenant.project_id,
        )


async def spend(database: Database, of: Client, room: float = -1000) -> None:
    """Leave so much of the budget of jobs."""
    await database.hot.execute(
        "INSERT INTO taskforge.job_budgets VALUES ($1, $2, clock_timestamp(), 0)"
        " ON CONFLICT (project_id) DO UPDATE SET (room, counted_at) = ($2, clock_timestamp())",
        of.tenant.project_id,
        room,
    )


async def jobs_of(database: Database, of: Client) -> int:
    count: int = await database.hot.fetchval(
        "SELECT count(*) FROM taskforge.jobs WHERE project_id = $1", of.tenant.project_id
    )
    return count


async def outcome(call: Awaitable[Any]) -> str:
    """`ok`, or the reason of the refusal, which must be that of a quota."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not StatusCode.RESOURCE_EXHAUSTED:
            raise
        return str(error.details())
    return "ok"


# -- Jobs a second ------------------------------------------------------------------------------


async def test_both_replicas_together_create_no_more_than_the_quota(
    acme: Client, other: Client, database: Database
) -> None:
    await allow(database, acme, max_jobs_per_second=50)
    started = time.monotonic()
    noise = [create(stub) for _ in range(150) for stub in acme.both]
    quiet = [create(stub) for _ in range(20) for stub in other.both]
    outcomes, _ = await asyncio.gather(asyncio.gather(*map(outcome, noise)), asyncio.gather(*quiet))
    took = time.monotonic() - started
    created = outcomes.count("ok")
    assert 50 <= created <= 50 * (took + 1)
    assert await jobs_of(database, acme) == created
    assert await jobs_of(database, other) == 40
    assert await miscounts(database.hot) == []


async def test_a_refusal_says_when_there_is_room_and_there_is_then(
    acme: Client, database: Database
) -> None:
    await allow(database, acme, max_jobs_per_second=2)
    await create(acme.first)
    await spend(database, acme, -0.5)
    async with unchanged(database.hot):
        for stub in acme.both:
            refusal = await expect_error(
                create(stub), StatusCode.RESOURCE_EXHAUSTED, "JOB_RATE_EXCEEDED"
            )
            assert refusal.metadata == {"limit": "2"}
            assert refusal.retry_info is not None
            wait = refusal.retry_info.retry_delay.ToTimedelta().total_seconds()
            assert 0 < wait <= 0.75 + 0.001
    await asyncio.sleep(wait)
    await create(acme.second)


async def test_a_batch_beyond_the_budget_is_refused_as_a_whole(
    acme: Client, database: Database
) -> None:
    await allow(database, acme, max_jobs_per_second=1000)
    await spend(database, acme, -100_000)
    for fields in ({}, {"all_or_nothing": True}, {"request_id": "r"}):
        request = pb.BatchCreateJobsRequest(jobs=[spec(), spec("nowhere")], **fields)
        async with unchanged(database.hot):
            refusal = await expect_error(
                acme.first.BatchCreateJobs(request),
                StatusCode.RESOURCE_EXHAUSTED,
                "JOB_RATE_EXCEEDED",
            )
        assert refusal.metadata == {"limit": "1000"}
    # The same call again, when there is room: nothing of it was remembered.
    await spend(database, acme, 1000)
    answer = await acme.second.BatchCreateJobs(request)
    assert [bool(result.job_id) for result in answer.results] == [True, False]


async def test_a_batch_larger_than_the_quota_is_taken_from_a_full_budget_and_paid_off_after(
    acme: Client, database: Database
) -> None:
    await allow(database, acme, max_jobs_per_second=10)
    await create_all(acme.first, [spec()] * 100)
    for stub in acme.both:
        refusal = await expect_error(
            create(stub), StatusCode.RESOURCE_EXHAUSTED, "JOB_RATE_EXCEEDED"
        )
        assert refusal.retry_info is not None
        assert 5 < refusal.retry_info.retry_delay.ToTimedelta().total_seconds() <= 9.2
    # Not from one that is not full.
    await spend(database, acme, 5)
    other_batch = pb.BatchCreateJobsRequest(jobs=[spec()] * 100)
    await expect_error(
        acme.second.BatchCreateJobs(other_batch),
        StatusCode.RESOURCE_EXHAUSTED,
        "JOB_RATE_EXCEEDED",
    )
    assert await jobs_of(database, acme) == 100


@pytest.mark.parametrize(
    "quota", [{"max_jobs_per_second": 1}, {"max_unfinished_jobs": 4}], ids=["rate", "unfinished"]
)
async def test_a_repetition_is_answered_when_nothing_may_be_created(
    acme: Client, database: Database, quota: dict[str, int]
) -> None:
    await allow(database, acme, **quota)
    await spend(database, acme, 1000)
    job = await create(acme.first, request_id="one")
    # The budget cannot hold more than a second's worth, but a first batch may be larger.
    await spend(database, acme, 1)
    batch = pb.BatchCreateJobsRequest(
        jobs=[spec(request_id="two"), spec(), spec()], request_id="all"
    )
    made = await eventually_created(acme.second, batch)
    await spend(database, acme)
    for stub in acme.both:
        with pytest.raises(grpc.aio.AioRpcError):
            await create(stub)
        async with unchanged(database.hot):
            assert (await create(stub, request_id="one")).id == job.id
            assert list((await stub.BatchCreateJobs(batch)).results) == made
            # By the ids of its jobs, some of which came alone.
            assert await create_all(stub, [spec(request_id="one")] * 2) == [job.id] * 2
            await expect_error(
                create(stub, request_id="one", payload="1"),
                StatusCode.ALREADY_EXISTS,
                "REQUEST_ID_REUSED",
            )
            assert await outcome(create_all(stub, [spec(request_id="one"), spec()])) != "ok"


async def eventually_created(
    stub: JobStub, request: pb.BatchCreateJobsRequest
) -> list[pb.CreatedJob]:
    """The results, as soon as the replica asks for room again."""
    answers: list[pb.BatchCreateJobsResponse] = []

    async def created() -> bool:
        return await outcome(collect(answers, stub.BatchCreateJobs(request))) == "ok"

    await eventually(created, "there is room for the batch")
    return list(answers[0].results)


async def collect(answers: list[Any], call: Awaitable[Any]) -> None:
    answers.append(await call)


async def test_a_repetition_costs_nothing(acme: Client, database: Database) -> None:
    await allow(database, acme, max_jobs_per_second=5)
    job = await create(acme.first, request_id="one")
    for _ in range(20):
        assert (await create(acme.first, request_id="one")).id == job.id
    room = await database.hot.fetchval("SELECT room FROM taskforge.job_budgets")
    # One for the job, one that the replica took for the repetitions and still has.
    assert room >= 3


async def test_what_the_system_creates_itself_is_not_refused(
    acme: Client, database: Database
) -> None:
    dead = await insert_queue(database.hot, "dead", project_id=acme.tenant.project_id)
    await database.hot.execute(
        "UPDATE taskforge.queues SET dead_letter_queue_id = $1, max_retries = 0"
        " WHERE project_id = $2 AND name = 'emails'",
        dead,
        acme.tenant.project_id,
    )
    await allow(database, acme, max_jobs_per_second=1000, max_unfinished_jobs=1)
    job = await create(acme.first)
    lease = await acquire_one(acme.first)
    await spend(database, acme)
    await fail(acme.second, lease.lease_token)
    letter = (await get(acme.first, job.id)).dead_letter_job_id
    assert (await get(acme.first, letter)).status == job_pb2.JOB_STATUS_PENDING


# -- Unfinished jobs ----------------------------------------------------------------------------


async def test_both_replicas_together_never_hold_more_unfinished_jobs_than_the_quota(
    acme: Client, other: Client, database: Database
) -> None:
    await allow(database, acme, max_unfinished_jobs=30)
    singles = [create(stub) for _ in range(30) for stub in acme.both]
    batches = [create_all(stub, [spec()] * 4) for _ in range(5) for stub in acme.both]
    quiet = [create(stub) for stub in other.both]
    outcomes = await asyncio.gather(*map(outcome, [*batches, *singles]), asyncio.gather(*quiet))
    assert await jobs_of(database, acme) == 30
    created = outcomes[:10].count("ok") * 4 + outcomes[10:-1].count("ok")
    assert created == 30
    for stub in acme.both:
        async with unchanged(database.hot):
            refusal = await expect_error(
                create(stub), StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_UNFINISHED_JOBS"
            )
        assert refusal.metadata == {"limit": "30"}
        assert refusal.retry_info is None


@pytest.mark.parametrize("fields", [{}, {"all_or_nothing": True}], ids=["each", "all"])
async def test_a_batch_that_does_not_fit_is_refused_as_a_whole(
    acme: Client, database: Database, fields: dict[str, Any]
) -> None:
    await allow(database, acme, max_unfinished_jobs=3)
    await create(acme.first)
    for stub, jobs in ((acme.first, 3), (acme.second, 3), (acme.second, 4)):
        request = pb.BatchCreateJobsRequest(jobs=[spec()] * jobs, request_id="r", **fields)
        async with unchanged(database.hot):
            await expect_error(
                stub.BatchCreateJobs(request),
                StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_UNFINISHED_JOBS",
            )
    await create_all(acme.second, [spec()] * 2, request_id="r", **fields)


async def test_a_job_that_ends_makes_room(acme: Client, database: Database) -> None:
    await allow(database, acme, max_unfinished_jobs=2)
    await create_all(acme.first, [spec()] * 2)
    leases = await acquire(acme.first)
    assert await outcome(create(acme.second)) != "ok"
    await complete(acme.first, leases[0].lease_token)

    async def is_created() -> bool:
        return await outcome(create(acme.second)) == "ok"

    await eventually(is_created, "the replica has seen that there is room")
    assert await jobs_of(database, acme) == 2


async def test_a_failed_job_is_tried_again_however_many_there_are(
    acme: Client, database: Database
) -> None:
    await allow(database, acme, max_unfinished_jobs=1)
    job = await create(acme.first, max_attempts=1)
    await fail(acme.first, (await acquire_one(acme.first)).lease_token)
    await create(acme.second)
    assert (await retry(acme.first, job.id, 1)).status == job_pb2.JOB_STATUS_PENDING
    assert await jobs_of(database, acme) == 2


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
            groups = [g for each in replicas for g in each.server.dispatcher._groups.values()]
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
