"""RetryJob: a failed job is made ready again, by hand."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    acquire_one,
    cancel,
    complete,
    create,
    fail,
    get,
    retry,
)
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from job_service.browsing import JobBrowser
from taskforge.v1 import job_pb2, queue_service_pb2
from taskforge_core.database import Database

PENDING = job_pb2.JOB_STATUS_PENDING


@pytest.fixture
async def emails(database: Database) -> None:
    """An open queue."""
    await insert_queue(database.hot, "emails")


async def failed_job(stub: JobStub, *, max_attempts: int = 3, **fields: Any) -> job_pb2.Job:
    """A job that failed at its first attempt, for good."""
    made = await create(stub, max_attempts=max_attempts, **fields)
    lease = await acquire_one(stub)
    assert lease.job.id == made.id
    await fail(stub, lease.lease_token, retryable=False, message="first")
    return await get(stub, made.id)


async def test_a_failed_job_with_attempts_left_is_ready_again_as_it_was(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    failed = await failed_job(job_stub, payload="[1]", labels={"a": "1"}, priority=5)
    job = await retry(job_stub, failed.id)
    expected = job_pb2.Job()
    expected.CopyFrom(failed)
    expected.status = PENDING
    expected.ClearField("completed_at")
    expected.updated_at.CopyFrom(job.updated_at)
    assert job == expected
    assert job.updated_at.ToNanoseconds() > failed.updated_at.ToNanoseconds()
    assert await get(job_stub, failed.id) == job
    lease = await acquire_one(job_stub)
    assert (lease.job.id, lease.job.attempt_count) == (failed.id, 2)
    await complete(job_stub, lease.lease_token)
    done = await get(job_stub, failed.id)
    assert [attempt.message for attempt in done.attempts] == ["first"]
    assert await miscounts(database.hot) == []


async def test_a_retried_job_comes_to_a_waiting_worker(
    job_stub: JobStub, other_stub: JobStub, emails: None
) -> None:
    failed = await failed_job(job_stub)
    async with lease_stream(other_stub) as stream:
        await create(other_stub)
        await stream.until_leases(1)
        await retry(job_stub, failed.id)
        await stream.until_leases(2)
        assert stream.leases[1].job.id == failed.id


@pytest.mark.usefixtures("no_polls")
async def test_a_retried_job_comes_to_a_waiting_worker_though_it_could_not_be_shown(
    job_stub: JobStub, emails: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = await failed_job(job_stub)
    async with lease_stream(job_stub) as stream:
        await create(job_stub)
        await stream.until_leases(1)

        async def away(*_: object) -> None:
            raise ConnectionResetError

        monkeypatch.setattr(JobBrowser, "find", away)
        await expect_error(
            retry(job_stub, failed.id), StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"
        )
        await stream.until_leases(2)
        assert stream.leases[1].job.id == failed.id


async def test_a_job_without_attempts_left_needs_additional_ones(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    failed = await failed_job(job_stub, max_attempts=1)
    async with unchanged(database.hot):
        refusal = await expect_error(
            retry(job_stub, failed.id), StatusCode.FAILED_PRECONDITION, "NO_ATTEMPTS_LEFT"
        )
        assert refusal.metadata == {"job": failed.id, "attempt_count": "1", "max_attempts": "1"}
        [violation] = refusal.preconditions
        assert violation.subject == f"jobs/{failed.id}"
    job = await retry(job_stub, failed.id, additional_attempts=2)
    assert (job.status, job.attempt_count, job.max_attempts) == (PENDING, 1, 3)


async def test_a_job_gets_no_more_than_a_hundred_attempts_in_all(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    failed = await failed_job(job_stub, max_attempts=2)
    async with unchanged(database.hot):
        refusal = await expect_error(
            retry(job_stub, failed.id, additional_attempts=99),
            StatusCode.FAILED_PRECONDITION,
            "NO_ATTEMPTS_LEFT",
        )
        assert refusal.metadata["max_attempts"] == "2"
    assert (await retry(job_stub, failed.id, additional_attempts=98)).max_attempts == 100
    await cancel(job_stub, failed.id)
    another = await failed_job(job_stub, max_attempts=1)
    assert (await retry(job_stub, another.id, additional_attempts=99)).max_attempts == 100


async def test_only_a_failed_job_can_be_retried(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    done = await create(job_stub)
    await complete(job_stub, (await acquire_one(job_stub)).lease_token)
    running = await create(job_stub)
    await acquire_one(job_stub)
    cancelled = await create(job_stub)
    await cancel(job_stub, cancelled.id)
    scheduled = await create(job_stub, scheduled_for=Timestamp(seconds=253_402_300_799))
    pending = await create(job_stub)
    async with unchanged(database.hot):
        for job, status in (
            (done, "SUCCEEDED"),
            (running, "PROCESSING"),
            (cancelled, "CANCELLED"),
            (scheduled, "SCHEDULED"),
            (pending, "PENDING"),
        ):
            refusal = await expect_error(
                retry(job_stub, job.id, additional_attempts=1),
                StatusCode.FAILED_PRECONDITION,
                "JOB_NOT_FAILED",
            )
            assert refusal.metadata == {"job": job.id, "status": status}
            [violation] = refusal.preconditions
            assert violation.subject == f"jobs/{job.id}"


async def test_a_job_that_is_not_there_cannot_be_retried(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    missing = str(uuid4())
    async with unchanged(database.hot):
        refusal = await expect_error(
            retry(job_stub, missing), StatusCode.NOT_FOUND, "JOB_NOT_FOUND"
        )
        assert refusal.metadata == {"job": missing}


async def test_a_job_of_a_deleted_queue_stays_failed(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    queue = await make(queue_stub)
    failed = await failed_job(job_stub)
    await queue_stub.DeleteQueue(queue_service_pb2.DeleteQueueRequest(queue="emails"))
    async with unchanged(database.hot):
        refusal = await expect_error(
            retry(job_stub, failed.id), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"
        )
        assert refusal.metadata == {"queue": queue.id}
    assert (await get(job_stub, failed.id)).status == job_pb2.JOB_STATUS_FAILED


async def test_a_job_retried_many_times_at_once_is_ready_once(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: None
) -> None:
    failed = await failed_job(job_stub)
    outcomes = await asyncio.gather(
        *(retry((job_stub, other_stub)[n % 2], failed.id) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, job_pb2.Job) for outcome in outcomes) == 1
    assert len(await acquire(job_stub)) == 1
    assert await miscounts(database.hot) == []


async def test_a_settle_repeated_after_its_job_was_retried_gets_the_same_answer_everywhere(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: None
) -> None:
    await create(job_stub)
    lease = await acquire_one(job_stub)
    token = lease.lease_token
    await fail(job_stub, token, retryable=False)
    await retry(job_stub, lease.job.id)
    async with unchanged(database.hot):
        for stub in (job_stub, other_stub):
            # Whatever it says now: the first answer stands until the job is leased again.
            assert await fail(stub, token, retryable=False) == job_pb2.JOB_STATUS_FAILED
            assert await complete(stub, token) == job_pb2.JOB_STATUS_FAILED


async def test_an_answered_settle_is_forgotten_when_its_job_is_leased_again(
    job_stub: JobStub, emails: None
) -> None:
    await create(job_stub)
    lease = await acquire_one(job_stub)
    await fail(job_stub, lease.lease_token, retryable=False)
    await retry(job_stub, lease.job.id)
    again = await acquire_one(job_stub)
    await expect_error(complete(job_stub, lease.lease_token), StatusCode.ABORTED, "LEASE_LOST")
    assert await complete(job_stub, again.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
