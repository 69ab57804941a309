"""A job that fails for good lives on in its queue's dead-letter queue."""

from uuid import UUID

from grpc import StatusCode
from tests.support.job_calls import acquire_one, create, fail, get, retry
from tests.support.job_replicas import JobReplica
from tests.support.leases import miscounts
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue

from scheduler_service.rescuing import Rescuer
from taskforge.v1 import job_pb2
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier


async def with_dead_letters(database: Database) -> tuple[UUID, UUID]:
    """The queue `emails` and its dead-letter queue, which is paused and takes next to nothing."""
    dead = await insert_queue(
        database.hot, "dead", is_active=False, accepts_jobs=False, max_payload_bytes=1
    )
    emails = await insert_queue(database.hot, "emails", dead_letter_queue_id=dead)
    return emails, dead


async def test_a_failed_job_leaves_its_payload_errors_and_origin_in_the_dead_letter_queue(
    replica: JobReplica, database: Database
) -> None:
    emails, dead = await with_dead_letters(database)
    job = await create(
        replica.stub, payload='{"to":  "ann"}', labels={"team": "a"}, traceparent="00-1", priority=4
    )
    lease = await acquire_one(replica.stub)
    assert await fail(replica.stub, lease.lease_token, message="no", retryable=False) == (
        job_pb2.JOB_STATUS_FAILED
    )
    failed = await get(replica.stub, job.id)
    letter = await get(replica.stub, failed.dead_letter_job_id)
    assert letter.id != job.id
    assert letter.queue_id == str(dead)
    assert letter.status == job_pb2.JOB_STATUS_PENDING
    assert (letter.payload, letter.priority, dict(letter.labels), letter.traceparent) == (
        job.payload,
        4,
        {"team": "a"},
        "00-1",
    )
    assert (letter.attempt_count, letter.max_attempts) == (0, 3)
    assert [attempt.message for attempt in letter.attempts] == ["no"]
    assert (letter.origin.job_id, letter.origin.queue_id) == (job.id, str(emails))
    assert letter.origin.failed_at == failed.completed_at
    assert await miscounts(database.hot) == []


async def test_a_job_whose_worker_died_in_its_last_attempt_is_dead_lettered(
    replica: JobReplica, database: Database
) -> None:
    await with_dead_letters(database)
    job = await create(replica.stub, max_attempts=1)
    await acquire_one(replica.stub)
    await database.hot.execute("UPDATE taskforge.sessions SET expires_at = now() - interval '1 s'")
    await Rescuer(database.hot, Notifier(database.hot, "scheduler")).run_once()
    failed = await get(replica.stub, job.id)
    assert failed.status == job_pb2.JOB_STATUS_FAILED
    letter = await get(replica.stub, failed.dead_letter_job_id)
    assert [attempt.outcome for attempt in letter.attempts] == [
        job_pb2.ATTEMPT_OUTCOME_LEASE_EXPIRED
    ]


async def test_a_job_that_is_tried_again_leaves_nothing(
    replica: JobReplica, database: Database
) -> None:
    await with_dead_letters(database)
    job = await create(replica.stub)
    lease = await acquire_one(replica.stub)
    await fail(replica.stub, lease.lease_token)
    assert (await get(replica.stub, job.id)).dead_letter_job_id == ""
    assert await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs") == 1


async def test_a_job_fails_also_where_its_dead_letter_queue_is_gone(
    replica: JobReplica, database: Database
) -> None:
    await with_dead_letters(database)
    await database.hot.execute("UPDATE taskforge.queues SET deleted_at = now() WHERE name = 'dead'")
    job = await create(replica.stub, max_attempts=1)
    lease = await acquire_one(replica.stub)
    assert await fail(replica.stub, lease.lease_token) == job_pb2.JOB_STATUS_FAILED
    assert (await get(replica.stub, job.id)).dead_letter_job_id == ""
    assert (await retry(replica.stub, job.id, 1)).status == job_pb2.JOB_STATUS_PENDING


async def test_a_dead_lettered_job_is_not_retried_itself(
    replica: JobReplica, database: Database
) -> None:
    await with_dead_letters(database)
    job = await create(replica.stub)
    lease = await acquire_one(replica.stub)
    await fail(replica.stub, lease.lease_token, retryable=False)
    letter = (await get(replica.stub, job.id)).dead_letter_job_id
    refusal = await expect_error(
        retry(replica.stub, job.id), StatusCode.FAILED_PRECONDITION, "JOB_DEAD_LETTERED"
    )
    assert refusal.metadata == {"job": job.id, "dead_letter_job": letter}
