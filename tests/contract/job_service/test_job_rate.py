"""How many jobs a second a project may create, over two replicas; and that nobody else notices."""

import asyncio
import time
from collections.abc import Awaitable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    acquire_one,
    create,
    create_all,
    fail,
    get,
    spec,
)
from tests.support.leases import miscounts
from tests.support.quotas import Client, allow, jobs_of, outcome, spend
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub
from tests.support.waiting import eventually

from job_service import budgeting
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database


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
    acme: Client, database: Database, monkeypatch: pytest.MonkeyPatch
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
    # So much time passes, for the database as for the replicas.
    clock = time.monotonic
    monkeypatch.setattr(budgeting, "time", SimpleNamespace(monotonic=lambda: clock() + wait))
    await database.hot.execute(
        "UPDATE taskforge.job_budgets SET counted_at = counted_at - $1::interval",
        timedelta(seconds=wait),
    )
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
