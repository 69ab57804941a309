"""Jobs that fail for good in a queue with a dead-letter queue, as clients see them."""

import pytest
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    acquire_one,
    complete,
    create,
    fail,
    failed,
    get,
    retry,
    settle,
)
from tests.support.job_replicas import JobReplica
from tests.support.lease_streams import lease_stream
from tests.support.leases import miscounts
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from scheduler_service.rescuing import Rescuer
from taskforge.v1 import job_pb2, queue_service_pb2
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier


async def test_a_failed_job_and_its_dead_letter_name_each_other(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    dead = await make(queue_stub, "dead")
    emails = await make(queue_stub, dead_letter_queue_id=dead.id, max_retries=0)
    made = await create(job_stub, payload='{"a":  1}', labels={"k": "v"}, priority=4)
    lease = await acquire_one(job_stub)
    status = await fail(job_stub, lease.lease_token, message="no", detail='{"at": 1}')
    assert status == job_pb2.JOB_STATUS_FAILED
    # Repeated, it answers alike and makes no second one.
    assert await fail(job_stub, lease.lease_token, message="no") == job_pb2.JOB_STATUS_FAILED
    shown = await get(job_stub, made.id)
    letter = await get(job_stub, shown.dead_letter_job_id)
    assert (letter.queue_id, letter.status) == (dead.id, job_pb2.JOB_STATUS_PENDING)
    assert letter.origin.job_id == made.id
    assert letter.origin.queue_id == emails.id
    assert letter.origin.failed_at == shown.completed_at
    assert (letter.payload, letter.priority) == (made.payload, 4)
    assert letter.labels == made.labels
    assert list(letter.attempts) == list(shown.attempts)
    assert [(each.message, each.detail) for each in letter.attempts] == [("no", '{"at": 1}')]
    [leased] = await acquire(job_stub, queues=["dead"])
    assert (leased.job.id, leased.job.origin) == (letter.id, letter.origin)
    assert await complete(job_stub, leased.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
    assert not letter.dead_letter_job_id
    assert await miscounts(database.hot) == []


async def test_a_job_that_has_a_dead_letter_is_not_tried_again(
    job_stub: JobStub, database: Database
) -> None:
    dead = await insert_queue(database.hot, "dead")
    await insert_queue(database.hot, "emails", dead_letter_queue_id=dead)
    made = await create(job_stub)
    await fail(job_stub, (await acquire_one(job_stub)).lease_token, retryable=False)
    letter = (await get(job_stub, made.id)).dead_letter_job_id
    async with unchanged(database.hot):
        for additional in (0, 5):
            refusal = await expect_error(
                retry(job_stub, made.id, additional),
                StatusCode.FAILED_PRECONDITION,
                "JOB_DEAD_LETTERED",
            )
            assert refusal.metadata == {"job": made.id, "dead_letter_job": letter}


async def test_a_batch_of_failures_leaves_one_each(job_stub: JobStub, database: Database) -> None:
    dead = await insert_queue(database.hot, "dead")
    await insert_queue(database.hot, "emails", dead_letter_queue_id=dead)
    ids = [(await create(job_stub, payload=str(n))).id for n in range(5)]
    leases = await acquire(job_stub)
    results = await settle(job_stub, [failed(each.lease_token, retryable=False) for each in leases])
    assert {result.status for result in results} == {job_pb2.JOB_STATUS_FAILED}
    letters = await acquire(job_stub, queues=["dead"])
    assert {lease.job.origin.job_id: lease.job.payload for lease in letters} == {
        job_id: str(n) for n, job_id in enumerate(ids)
    }
    assert await miscounts(database.hot) == []


@pytest.mark.usefixtures("no_polls")
async def test_a_dead_letter_comes_at_once_to_who_waits_for_it_at_another_replica(
    replica: JobReplica, other_replica: JobReplica, database: Database
) -> None:
    dead = await insert_queue(database.hot, "dead")
    await insert_queue(database.hot, "emails", dead_letter_queue_id=dead)
    async with lease_stream(other_replica.stub, queues=["dead"]) as stream:
        await other_replica.until_taking(1)
        for count in range(1, 4):
            await create(replica.stub)
            lease = await acquire_one(replica.stub, queues=["emails"])
            await fail(replica.stub, lease.lease_token, retryable=False)
            await stream.until_leases(count)
            assert stream.leases[-1].job.origin.job_id == lease.job.id


@pytest.mark.usefixtures("no_polls")
async def test_a_job_that_kills_its_workers_ends_as_a_dead_letter(
    replica: JobReplica, database: Database
) -> None:
    dead = await insert_queue(database.hot, "dead")
    await insert_queue(database.hot, "emails", dead_letter_queue_id=dead)
    made = await create(replica.stub, max_attempts=2)
    notifier = Notifier(database.hot, "scheduler")
    rescuer = Rescuer(database.hot, notifier)
    async with lease_stream(replica.stub, queues=["dead"]) as stream:
        await replica.until_taking(1)
        for attempt in (1, 2):
            lease = await acquire_one(replica.stub, queues=["emails"])
            assert lease.job.attempt_count == attempt
            await database.hot.execute(
                "UPDATE taskforge.sessions SET expires_at = clock_timestamp()"
                " WHERE expires_at IS NOT NULL"
            )
            await rescuer.run_once()
        [letter] = await stream.until_leases(1)
        assert letter.job.origin.job_id == made.id
        shown = await get(replica.stub, letter.job.id)
        assert [each.outcome for each in shown.attempts] == [
            job_pb2.ATTEMPT_OUTCOME_LEASE_EXPIRED
        ] * 2
    await notifier.flushed()


async def test_a_paused_queue_that_keeps_accepting_takes_jobs_and_hands_out_none(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await make(queue_stub)
    pause = queue_service_pb2.PauseQueueRequest(queue="emails", keep_accepting=True)
    await queue_stub.PauseQueue(pause)
    made = await create(job_stub)
    assert made.status == job_pb2.JOB_STATUS_PENDING
    assert await acquire(job_stub) == []
    await queue_stub.ResumeQueue(queue_service_pb2.ResumeQueueRequest(queue="emails"))
    assert (await acquire_one(job_stub)).job.id == made.id
