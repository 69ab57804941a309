"""How many unfinished jobs a project may have, over two replicas."""

import asyncio
from typing import Any

import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    acquire_one,
    complete,
    create,
    create_all,
    fail,
    retry,
    spec,
)
from tests.support.quotas import Client, allow, jobs_of, outcome
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.waiting import eventually

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database


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
