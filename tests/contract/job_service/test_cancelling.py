"""CancelJob: waiting jobs end at once, running ones by their workers, who are told."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import (
    CANCEL_REQUESTED,
    Lease,
    acquire,
    acquire_one,
    cancel,
    complete,
    create,
    create_all,
    duration,
    fail,
    get,
    heartbeat,
    release,
    settle,
    snoozed,
    spec,
    verdicts,
)
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub

from scheduler_service.rescuing import Rescuer
from scheduler_service.timing_out import TimeoutEnforcer
from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier

PROCESSING = job_pb2.JOB_STATUS_PROCESSING
SUCCEEDED = job_pb2.JOB_STATUS_SUCCEEDED
CANCELLED = job_pb2.JOB_STATUS_CANCELLED


@pytest.fixture
async def emails(database: Database) -> None:
    """An open queue."""
    await insert_queue(database.hot, "emails")


async def cancelled_while_running(stub: JobStub, **fields: Any) -> Lease:
    """A leased job whose cancellation was asked for."""
    await create(stub, **fields)
    lease = await acquire_one(stub, worker_id="w")
    job = await cancel(stub, lease.job.id, interrupt_running=True)
    assert job.status == PROCESSING
    assert job.HasField("cancel_requested_at")
    return lease


# -- Waiting -------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_at_once(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    ready = await create(job_stub, payload='"kept"', labels={"a": "1"})
    later = await create(job_stub, scheduled_for=Timestamp(seconds=253_402_300_799))
    for made, interrupt in ((ready, False), (later, True)):
        job = await cancel(job_stub, made.id, interrupt_running=interrupt)
        assert job.status == CANCELLED
        assert job.completed_at.ToNanoseconds() > made.created_at.ToNanoseconds()
        assert (job.payload, job.labels, job.attempt_count) == (made.payload, made.labels, 0)
        assert await get(job_stub, made.id) == job
        # Cancelling it again changes nothing.
        async with unchanged(database.hot):
            assert await cancel(job_stub, made.id) == job
            assert await cancel(job_stub, made.id, interrupt_running=True) == job
    assert await acquire(job_stub) == []
    assert await miscounts(database.hot) == []


async def test_a_job_between_two_attempts_is_cancelled_with_what_it_has_been_through(
    job_stub: JobStub, emails: None
) -> None:
    made = await create(job_stub)
    token = (await acquire_one(job_stub)).lease_token
    status = await fail(job_stub, token, message="first")
    job = await cancel(job_stub, made.id)
    assert (job.status, job.attempt_count) == (CANCELLED, 1)
    assert [attempt.message for attempt in job.attempts] == ["first"]
    # The settle that was answered stays answered.
    assert await fail(job_stub, token, message="first") == status


async def test_a_job_that_is_cancelled_and_leased_at_once_is_either_but_never_both(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: None
) -> None:
    ids = await create_all(job_stub, [spec()] * 40)

    async def try_to_cancel(job_id: str) -> bool:
        try:
            return (await cancel(other_stub, job_id)).status == CANCELLED
        except Exception:  # noqa: BLE001 (refused because it runs)
            return False

    leasing = asyncio.create_task(acquire(job_stub))
    cancelled = await asyncio.gather(*(try_to_cancel(job_id) for job_id in ids))
    leases = await leasing
    leased = {lease.job.id for lease in leases}
    assert {job_id for job_id, done in zip(ids, cancelled, strict=True) if not done} == leased
    assert await miscounts(database.hot) == []


# -- Running -------------------------------------------------------------------------------------


async def test_a_running_job_is_left_alone_unless_asked_otherwise(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    await create(job_stub)
    lease = await acquire_one(job_stub)
    async with unchanged(database.hot):
        refusal = await expect_error(
            cancel(job_stub, lease.job.id), StatusCode.FAILED_PRECONDITION, "JOB_RUNNING"
        )
    assert refusal.metadata == {"job": lease.job.id}
    [violation] = refusal.preconditions
    assert violation.subject == f"jobs/{lease.job.id}"


async def test_the_worker_is_told_on_its_stream_once_and_in_every_heartbeat(
    job_stub: JobStub, other_stub: JobStub, emails: None
) -> None:
    await create_all(job_stub, [spec()] * 2)
    async with lease_stream(job_stub, max_in_flight=2) as stream:
        one, two = await stream.until_leases(2)
        asked = await cancel(job_stub, one.job.id, interrupt_running=True)
        await stream.until(lambda stream: len(stream.cancelled) == 1, "the first is told")
        await cancel(other_stub, two.job.id, interrupt_running=True)
        await stream.until(lambda stream: len(stream.cancelled) == 2, "the second is told")
        assert stream.cancelled == stream.tokens
        for sequence, stub in enumerate((job_stub, other_stub), start=1):
            answer = await heartbeat(stub, stream.session_id, sequence, stream.tokens)
            assert verdicts(answer) == [CANCEL_REQUESTED] * 2
        # Asking again changes nothing, and is not told again.
        again = await cancel(job_stub, one.job.id, interrupt_running=True)
        assert again.cancel_requested_at == asked.cancel_requested_at
        await create(job_stub)
        await complete(job_stub, one.lease_token)
        await stream.until_leases(3)
        assert len(stream.cancelled) == 2


async def test_a_stream_opened_after_the_cancellation_is_told_as_well(
    job_stub: JobStub, other_stub: JobStub, emails: None
) -> None:
    await create(job_stub)
    session_id = str(uuid4())
    async with lease_stream(job_stub, session_id) as old:
        [lease] = await old.until_leases(1)
    await cancel(job_stub, lease.job.id, interrupt_running=True)
    async with lease_stream(other_stub, session_id) as new:
        await new.until(lambda stream: bool(stream.cancelled), "the cancellation is told")
        assert new.cancelled == [lease.lease_token]


async def test_success_after_a_cancellation_is_success(job_stub: JobStub, emails: None) -> None:
    lease = await cancelled_while_running(job_stub)
    assert await complete(job_stub, lease.lease_token, "1") == SUCCEEDED
    job = await get(job_stub, lease.job.id)
    assert (job.status, job.result, len(job.attempts)) == (SUCCEEDED, "1", 0)
    assert job.HasField("cancel_requested_at")


async def test_a_failure_after_a_cancellation_ends_the_job_and_keeps_its_words(
    job_stub: JobStub, emails: None
) -> None:
    for retry_after in (None, Duration()):
        lease = await cancelled_while_running(job_stub)
        failure = {"message": "stopped", "detail": "[1]", "retry_after": retry_after}
        assert await fail(job_stub, lease.lease_token, **failure) == CANCELLED
        job = await get(job_stub, lease.job.id)
        assert job.status == CANCELLED
        [attempt] = job.attempts
        assert attempt.outcome == job_pb2.ATTEMPT_OUTCOME_CANCELLED
        assert (attempt.message, attempt.detail, attempt.worker_id) == ("stopped", "[1]", "w")


async def test_release_and_snooze_after_a_cancellation_end_the_job(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    lease = await cancelled_while_running(job_stub)
    assert await release(job_stub, lease.lease_token) == CANCELLED
    snoozing = await cancelled_while_running(job_stub)
    [result] = await settle(job_stub, [snoozed(snoozing.lease_token, duration(hours=1))])
    assert result.status == CANCELLED
    for each in (lease, snoozing):
        assert (await get(job_stub, each.job.id)).status == CANCELLED
        assert await release(job_stub, each.lease_token) == CANCELLED
    assert await acquire(job_stub) == []
    assert await miscounts(database.hot) == []


async def test_expiry_and_timeout_after_a_cancellation_end_the_job(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    notifier = Notifier(database.hot, "scheduler")
    expiring = await cancelled_while_running(job_stub)
    await database.hot.execute(
        "UPDATE taskforge.sessions SET expires_at = clock_timestamp() - interval '1 second'"
    )
    await Rescuer(database.hot, notifier).run_once()
    overdue = await cancelled_while_running(job_stub, timeout=duration(minutes=1))
    await database.hot.execute("UPDATE taskforge.jobs SET timeout_at = clock_timestamp()")
    await TimeoutEnforcer(database.hot, notifier).run_once()
    for lease in (expiring, overdue):
        job = await get(job_stub, lease.job.id)
        assert job.status == CANCELLED
        [attempt] = job.attempts
        assert attempt.outcome == job_pb2.ATTEMPT_OUTCOME_CANCELLED
        await expect_error(complete(job_stub, lease.lease_token), StatusCode.ABORTED, "LEASE_LOST")
    assert await acquire(job_stub) == []
    assert await miscounts(database.hot) == []


# -- Refusals ------------------------------------------------------------------------------------


async def test_a_job_that_has_ended_cannot_be_cancelled(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    await create_all(job_stub, [spec()] * 2)
    done, failing = await acquire(job_stub)
    await complete(job_stub, done.lease_token)
    await fail(job_stub, failing.lease_token, retryable=False)
    async with unchanged(database.hot):
        for lease, status in ((done, "SUCCEEDED"), (failing, "FAILED")):
            for interrupt in (False, True):
                refusal = await expect_error(
                    cancel(job_stub, lease.job.id, interrupt_running=interrupt),
                    StatusCode.FAILED_PRECONDITION,
                    "JOB_FINISHED",
                )
                assert refusal.metadata == {"job": lease.job.id, "status": status}
                [violation] = refusal.preconditions
                assert violation.subject == f"jobs/{lease.job.id}"


async def test_a_job_that_is_not_there_cannot_be_cancelled(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    missing = str(uuid4())
    async with unchanged(database.hot):
        for interrupt in (False, True):
            refusal = await expect_error(
                cancel(job_stub, missing, interrupt_running=interrupt),
                StatusCode.NOT_FOUND,
                "JOB_NOT_FOUND",
            )
            assert refusal.metadata == {"job": missing}
