"""Settling: how a leased job ends, once and for all, by its token."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    acquire_one,
    complete,
    create,
    create_all,
    duration,
    fail,
    failed,
    get,
    release,
    released,
    settle,
    snoozed,
    span,
    spec,
    succeeded,
)
from tests.support.leases import miscounts
from tests.support.refusals import expect_error, expect_status
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from scheduler_service.promoting import Promoter
from taskforge.v1 import job_pb2, queue_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier

PENDING = job_pb2.JOB_STATUS_PENDING
SCHEDULED = job_pb2.JOB_STATUS_SCHEDULED
PROCESSING = job_pb2.JOB_STATUS_PROCESSING
SUCCEEDED = job_pb2.JOB_STATUS_SUCCEEDED
FAILED = job_pb2.JOB_STATUS_FAILED


@pytest.fixture
async def emails(database: Database) -> None:
    """An open queue."""
    await insert_queue(database.hot, "emails")


async def make_due(database: Database) -> None:
    """Let the time of all scheduled jobs come, and promote them."""
    await database.hot.execute("UPDATE taskforge.jobs SET scheduled_for = now() WHERE status = 2")
    await Promoter(database.hot, Notifier(database.hot, "scheduler")).run_once()


# -- Success -------------------------------------------------------------------------------------


async def test_success_ends_a_job_with_its_result(job_stub: JobStub, emails: None) -> None:
    made = await create(job_stub)
    lease = await acquire_one(job_stub, worker_id="w")
    assert await complete(job_stub, lease.lease_token, '{"sent":  true}') == SUCCEEDED
    job = await get(job_stub, made.id)
    assert job.status == SUCCEEDED
    assert job.result == '{"sent":  true}'
    assert (job.attempt_count, len(job.attempts), job.worker_id) == (1, 0, "w")
    assert job.completed_at == job.updated_at
    assert job.completed_at.ToNanoseconds() >= job.started_at.ToNanoseconds()
    assert not job.HasField("timeout_at")
    assert await acquire(job_stub) == []


async def test_success_needs_no_result(job_stub: JobStub, emails: None) -> None:
    job = await create(job_stub)
    await complete(job_stub, (await acquire_one(job_stub)).lease_token)
    assert (await get(job_stub, job.id)).result == ""


# -- Failure -------------------------------------------------------------------------------------


async def test_a_failure_is_tried_again_with_a_growing_wait_until_the_attempts_are_used_up(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    settings = queue_pb2.QueueSettings(
        max_retries=3,
        retry_delay=Duration(seconds=10),
        backoff_multiplier=3,
        max_retry_delay=Duration(seconds=60),
        retry_jitter=0,
    )
    await queue_stub.CreateQueue(
        queue_service_pb2.CreateQueueRequest(name="emails", settings=settings)
    )
    made = await create(job_stub)
    waits = []
    for number in range(1, 5):
        lease = await acquire_one(job_stub, worker_id=f"w{number}")
        assert lease.job.attempt_count == number
        status = await fail(
            job_stub, lease.lease_token, message=f"failure {number}", detail=f"[{number}]"
        )
        job = await get(job_stub, made.id)
        assert job.status == status
        if number < 4:
            assert status == SCHEDULED
            waits.append(span(job.updated_at, job.scheduled_for).total_seconds())
            await make_due(database)
    assert status == FAILED
    assert waits == pytest.approx([10, 30, 60], abs=0.1)
    assert job.HasField("completed_at")
    assert [
        (attempt.number, attempt.worker_id, attempt.message, attempt.detail)
        for attempt in job.attempts
    ] == [(n, f"w{n}", f"failure {n}", f"[{n}]") for n in range(1, 5)]
    for attempt in job.attempts:
        assert attempt.outcome == job_pb2.ATTEMPT_OUTCOME_FAILURE
        assert attempt.started_at.ToNanoseconds() <= attempt.ended_at.ToNanoseconds()
    assert await acquire(job_stub) == []
    assert await miscounts(database.hot) == []


async def test_the_default_wait_is_five_seconds_give_or_take_a_tenth(
    job_stub: JobStub, emails: None
) -> None:
    await create_all(job_stub, [spec()] * 20)
    for lease in await acquire(job_stub):
        assert await fail(job_stub, lease.lease_token) == SCHEDULED
        job = await get(job_stub, lease.job.id)
        assert 4.4 < span(job.updated_at, job.scheduled_for).total_seconds() < 5.6


async def test_a_workers_own_wait_wins(job_stub: JobStub, emails: None) -> None:
    await create_all(job_stub, [spec(), spec()])
    week, at_once = await acquire(job_stub)
    status = await fail(job_stub, week.lease_token, retry_after=Duration(seconds=604_800))
    assert status == SCHEDULED
    job = await get(job_stub, week.job.id)
    wait = span(job.updated_at, job.scheduled_for)
    assert abs(wait - timedelta(days=7)) < timedelta(seconds=1)
    assert await fail(job_stub, at_once.lease_token, retry_after=Duration()) == PENDING
    assert (await acquire_one(job_stub)).job.id == at_once.job.id


async def test_a_failure_that_is_not_retryable_ends_the_job(
    job_stub: JobStub, emails: None
) -> None:
    made = await create(job_stub, max_attempts=10)
    lease = await acquire_one(job_stub)
    assert await fail(job_stub, lease.lease_token, retryable=False, message="bad address") == FAILED
    job = await get(job_stub, made.id)
    assert (job.status, job.attempt_count) == (FAILED, 1)
    assert [attempt.message for attempt in job.attempts] == ["bad address"]


async def test_a_failure_is_told_with_the_longest_words_or_without_any(
    job_stub: JobStub, emails: None
) -> None:
    made = await create(job_stub)
    message, detail = "✉" * 1000, '"' + "\\u0000" * 1365 + '"'
    token = (await acquire_one(job_stub)).lease_token
    await fail(job_stub, token, message=message, detail=detail, retry_after=Duration())
    token = (await acquire_one(job_stub)).lease_token
    await job_stub.FailJob(pb.FailJobRequest(lease_token=token))
    told, untold = (await get(job_stub, made.id)).attempts
    assert (told.message, told.detail) == (message, detail)
    assert (untold.message, untold.detail) == ("", "")


# -- Release and snooze --------------------------------------------------------------------------


async def test_a_released_job_is_ready_at_once_without_an_attempt(
    job_stub: JobStub, emails: None
) -> None:
    made = await create(job_stub, max_attempts=1)
    for _ in range(3):
        lease = await acquire_one(job_stub)
        assert await release(job_stub, lease.lease_token) == PENDING
        job = await get(job_stub, made.id)
        assert (job.status, job.attempt_count, len(job.attempts)) == (PENDING, 0, 0)
    await complete(job_stub, (await acquire_one(job_stub)).lease_token)


async def test_a_snoozed_job_comes_later_without_an_attempt(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    made = await create(job_stub, max_attempts=1)
    lease = await acquire_one(job_stub)
    [result] = await settle(job_stub, [snoozed(lease.lease_token, duration(hours=1))])
    assert result.status == SCHEDULED
    job = await get(job_stub, made.id)
    assert (job.status, job.attempt_count, len(job.attempts)) == (SCHEDULED, 0, 0)
    wait = span(job.updated_at, job.scheduled_for)
    assert abs(wait - timedelta(hours=1)) < timedelta(seconds=1)
    assert await acquire(job_stub) == []
    await make_due(database)
    # Without a delay it is ready at once.
    for delay in (None, Duration()):
        lease = await acquire_one(job_stub)
        [result] = await settle(job_stub, [snoozed(lease.lease_token, delay)])
        assert result.status == PENDING
    assert (await acquire_one(job_stub)).job.attempt_count == 1


# -- Once and for all ----------------------------------------------------------------------------


async def test_a_repeated_settle_gets_the_first_answer_whatever_it_says_and_wherever(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: None
) -> None:
    await create_all(job_stub, [spec(max_attempts=2)] * 5)
    done, wrong, final, back, later = (lease.lease_token for lease in await acquire(job_stub))
    first = {
        done: await complete(job_stub, done, "1"),
        wrong: await fail(job_stub, wrong),
        final: await fail(job_stub, final, retryable=False),
        back: await release(job_stub, back),
        later: (await settle(job_stub, [snoozed(later, duration(hours=1))]))[0].status,
    }
    assert list(first.values()) == [SUCCEEDED, SCHEDULED, FAILED, PENDING, SCHEDULED]
    async with unchanged(database.hot):
        for token, status in first.items():
            for stub in (job_stub, other_stub):
                assert await complete(stub, token, "2") == status
                assert await fail(stub, token, message="other") == status
                assert await release(stub, token) == status
                [result] = await settle(stub, [snoozed(token)])
                assert result.status == status


async def test_a_settle_repeated_a_hundred_times_at_once_has_one_effect(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: None
) -> None:
    made = await create(job_stub)
    token = (await acquire_one(job_stub)).lease_token
    outcomes = await asyncio.gather(
        *(complete((job_stub, other_stub)[n % 2], token, str(n)) for n in range(60)),
        *(fail((job_stub, other_stub)[n % 2], token, message=str(n)) for n in range(40)),
    )
    assert len(set(outcomes)) == 1
    job = await get(job_stub, made.id)
    assert job.status == outcomes[0]
    assert len(job.attempts) == (job.status == SCHEDULED)
    assert await miscounts(database.hot) == []


async def test_a_stale_token_is_refused_and_changes_nothing(
    job_stub: JobStub, other_stub: JobStub, database: Database, emails: None
) -> None:
    made = await create(job_stub)
    stale = (await acquire_one(job_stub)).lease_token
    await release(job_stub, stale)
    current = (await acquire_one(job_stub)).lease_token

    async def is_refused(stub: JobStub) -> None:
        for call in (
            complete(stub, stale, "1"),
            fail(stub, stale, retryable=False),
            release(stub, stale),
        ):
            refusal = await expect_error(call, StatusCode.ABORTED, "LEASE_LOST")
            assert refusal.metadata == {"job": made.id}
        results = await settle(stub, [succeeded(stale), failed(stale), released(stale)])
        for result in results:
            expect_status(result.error, StatusCode.ABORTED, "LEASE_LOST")

    async with unchanged(database.hot):
        await is_refused(job_stub)
        await is_refused(other_stub)
    assert (await get(job_stub, made.id)).status == PROCESSING
    assert await complete(job_stub, current, "2") == SUCCEEDED
    async with unchanged(database.hot):
        await is_refused(job_stub)
    assert (await get(job_stub, made.id)).result == "2"


async def test_a_token_of_a_lease_that_never_was_is_refused(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    await create(job_stub)
    token = (await acquire_one(job_stub)).lease_token
    job_id = str(uuid4())
    other_project = uuid4().hex
    async with unchanged(database.hot):
        for invented in (
            token[:-1] + ("1" if token[-1] != "1" else "2"),
            token + "0",
            token.replace(token[40:76], job_id),
            other_project + token[32:],
        ):
            await expect_error(complete(job_stub, invented), StatusCode.ABORTED, "LEASE_LOST")


# -- Batches -------------------------------------------------------------------------------------


async def test_each_settlement_of_a_batch_has_a_status_of_its_own(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    await create_all(job_stub, [spec()] * 7)
    tokens = [lease.lease_token for lease in await acquire(job_stub)]
    await release(job_stub, tokens[6])
    await acquire_one(job_stub)
    results = await settle(
        job_stub,
        [
            succeeded(tokens[0], "1"),
            pb.Settlement(lease_token="no token", release=pb.Release()),
            failed(tokens[1], retryable=False),
            succeeded(tokens[2], "NaN"),
            released(tokens[3]),
            succeeded(tokens[6]),
            snoozed(tokens[4], duration(hours=1)),
            failed(tokens[5], detail="{"),
        ],
    )
    assert [result.status for result in results] == [
        SUCCEEDED, 0, FAILED, 0, PENDING, 0, SCHEDULED, 0,
    ]  # fmt: skip
    expect_status(results[1].error, StatusCode.INVALID_ARGUMENT, "INVALID_LEASE_TOKEN")
    refusal = expect_status(results[3].error, StatusCode.INVALID_ARGUMENT, "INVALID_JSON")
    assert refusal.metadata == {"field": "settlements[3].success.result"}
    expect_status(results[5].error, StatusCode.ABORTED, "LEASE_LOST")
    refusal = expect_status(results[7].error, StatusCode.INVALID_ARGUMENT, "INVALID_JSON")
    assert refusal.metadata == {"field": "settlements[7].failure.detail"}
    # What was refused is still held.
    assert await complete(job_stub, tokens[2]) == SUCCEEDED
    assert await complete(job_stub, tokens[5]) == SUCCEEDED
    assert await miscounts(database.hot) == []


async def test_of_equal_tokens_in_a_batch_the_first_wins(job_stub: JobStub, emails: None) -> None:
    await create_all(job_stub, [spec()] * 2)
    one, two = (lease.lease_token for lease in await acquire(job_stub))
    results = await settle(
        job_stub,
        [succeeded(one, "1"), failed(two), failed(one), succeeded(one, "2"), succeeded(two)],
    )
    assert [result.status for result in results] == [
        SUCCEEDED, SCHEDULED, SUCCEEDED, SUCCEEDED, SCHEDULED,
    ]  # fmt: skip


async def test_a_thousand_leases_are_settled_in_one_call(
    job_stub: JobStub, database: Database, emails: None
) -> None:
    await create_all(job_stub, [spec()] * 1000)
    leases = await acquire(job_stub, max_in_flight=1000)
    assert len(leases) == 1000
    endings = (succeeded, failed, released, snoozed)
    settlements = [endings[n % 4](lease.lease_token) for n, lease in enumerate(leases)]
    results = await settle(job_stub, settlements)
    expected = [SUCCEEDED, SCHEDULED, PENDING, PENDING] * 250
    assert [result.status for result in results] == expected
    assert await settle(job_stub, settlements) == results
    assert await miscounts(database.hot) == []
