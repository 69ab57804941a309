"""Taking jobs back from a dead-letter queue, over real servers."""

from typing import Any
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import acquire, acquire_one, create, fail, get
from tests.support.leases import miscounts
from tests.support.queue_calls import make, update
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database


async def redrive(stub: QueueStub, queue: str = "dead", **fields: Any) -> int:
    answer = await stub.RedriveJobs(pb.RedriveJobsRequest(queue=queue, **fields))
    return answer.redriven_jobs


@pytest.fixture
async def dead(queue_stub: QueueStub) -> queue_pb2.Queue:
    """The dead-letter queue of `emails` and `letters`, whose jobs have one attempt."""
    dead = await make(queue_stub, "dead")
    for name in ("emails", "letters"):
        await make(queue_stub, name, max_retries=0, dead_letter_queue_id=dead.id)
    return dead


async def bury(stub: JobStub, queue: str = "emails", **fields: Any) -> job_pb2.Job:
    """Create a job that fails; the one that was made for it in the dead-letter queue."""
    failed = await create(stub, queue, **fields)
    lease = await acquire_one(stub, queues=[queue])
    await fail(stub, lease.lease_token, message="broken")
    return await get(stub, (await get(stub, failed.id)).dead_letter_job_id)


async def test_a_redriven_job_is_the_same_job_with_no_attempt_used(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    buried = await bury(job_stub, payload='{"to": "x"}', labels={"a": "b"}, priority=7)
    assert buried.queue_id == dead.id
    # Half of its attempts there are used as well.
    lease = await acquire_one(job_stub, queues=["dead"])
    assert lease.job.id == buried.id
    await fail(job_stub, lease.lease_token)
    waiting = await get(job_stub, buried.id)
    assert waiting.status == job_pb2.JOB_STATUS_SCHEDULED

    async with unchanged(database.hot):
        assert await redrive(queue_stub, dry_run=True) == 1
    assert await redrive(queue_stub) == 1
    back = await get(job_stub, buried.id)
    expected = job_pb2.Job()
    expected.CopyFrom(waiting)
    expected.queue_id = buried.origin.queue_id
    expected.status = job_pb2.JOB_STATUS_PENDING
    expected.attempt_count = 0
    expected.max_attempts = 1
    expected.ClearField("scheduled_for")
    expected.updated_at.CopyFrom(back.updated_at)
    assert back == expected
    assert back.origin == buried.origin
    assert await miscounts(database.hot) == []

    again = await acquire_one(job_stub, queues=["emails"])
    assert (again.job.id, again.job.attempt_count) == (buried.id, 1)
    # It has failed in `emails` once more, and gets another job in the dead-letter queue.
    await fail(job_stub, again.lease_token)
    ended = await get(job_stub, buried.id)
    assert ended.status == job_pb2.JOB_STATUS_FAILED
    assert (await get(job_stub, ended.dead_letter_job_id)).origin.job_id == buried.id


async def test_the_attempts_are_those_that_the_origin_gives_now(
    queue_stub: QueueStub, job_stub: JobStub, dead: queue_pb2.Queue
) -> None:
    buried = await bury(job_stub)
    await queue_stub.UpdateQueue(update("emails", "settings.max_retries"))
    assert await redrive(queue_stub) == 1
    assert (await get(job_stub, buried.id)).max_attempts == 3


async def test_a_number_of_attempts_of_its_own_goes_with_the_job(
    queue_stub: QueueStub, job_stub: JobStub, dead: queue_pb2.Queue
) -> None:
    queue = await make(queue_stub, "faxes", dead_letter_queue_id=dead.id, max_retries=5)
    buried = await bury(job_stub, queue.name, max_attempts=1)
    assert await redrive(queue_stub) == 1
    back = await get(job_stub, buried.id)
    assert (back.max_attempts, back.attempt_count) == (1, 0)


async def test_of_the_failed_attempts_the_last_hundred_stay(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    buried = await bury(job_stub)
    await database.hot.execute(
        "UPDATE taskforge.jobs SET attempts = (SELECT jsonb_agg(attempts->0 || jsonb_build_object("
        "'message', n::text)) FROM generate_series(1, 150) AS n) WHERE id = $1",
        UUID(buried.id),
    )
    assert await redrive(queue_stub) == 1
    back = await get(job_stub, buried.id)
    assert [attempt.message for attempt in back.attempts] == [str(n) for n in range(51, 151)]


async def test_filters_combine(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    jobs = {
        (queue, kind): await bury(job_stub, queue, job_type=kind)
        for queue in ("emails", "letters")
        for kind in ("send", "print")
    }
    letters = jobs["letters", "send"].origin.queue_id
    async with unchanged(database.hot):
        for filters, n in (
            ({}, 4),
            ({"job_type": "send"}, 2),
            ({"origin_queue": "letters"}, 2),
            ({"origin_queue": letters, "job_type": "print"}, 1),
            ({"job_type": "sen"}, 0),
            ({"origin_queue": "dead"}, 0),
            ({"max_jobs": 3}, 3),
            ({"job_type": "send", "max_jobs": 1}, 1),
        ):
            assert await redrive(queue_stub, **filters, dry_run=True) == n
    assert await redrive(queue_stub, job_type="send", origin_queue="letters") == 1
    assert await redrive(queue_stub, job_type="send", origin_queue="letters") == 0
    moved = await get(job_stub, jobs["letters", "send"].id)
    assert moved.queue_id == letters
    # The oldest first.
    assert await redrive(queue_stub, max_jobs=2) == 2
    back = [(await get(job_stub, job.id)).queue_id != dead.id for job in jobs.values()]
    assert back == [True, True, True, False]
    assert await redrive(queue_stub) == 1
    assert await miscounts(database.hot) == []


async def test_what_did_not_come_from_another_queue_stays(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    await create(job_stub, "dead")
    await bury(job_stub)
    assert await redrive(queue_stub) == 1
    async with unchanged(database.hot):
        # Neither the job that was made in `dead`, nor the one that is where it came from.
        assert await redrive(queue_stub) == 0
        assert await redrive(queue_stub, "emails") == 0


async def test_a_running_job_stays(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    buried = await bury(job_stub)
    lease = await acquire_one(job_stub, queues=["dead"])
    async with unchanged(database.hot):
        assert await redrive(queue_stub) == 0
    assert (await get(job_stub, buried.id)).queue_id == dead.id
    await fail(job_stub, lease.lease_token)
    assert await redrive(queue_stub) == 1


async def test_a_job_whose_origin_is_deleted_stays(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    await bury(job_stub)
    await bury(job_stub, "letters")
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    # Not the queue that bears its name now either.
    await make(queue_stub, "emails")
    async with unchanged(database.hot):
        assert await redrive(queue_stub, dry_run=True) == 1
        assert await redrive(queue_stub, origin_queue="emails") == 0
    assert await redrive(queue_stub) == 1


async def test_jobs_go_back_to_a_paused_queue_and_wait_there(
    queue_stub: QueueStub, job_stub: JobStub, dead: queue_pb2.Queue
) -> None:
    buried = await bury(job_stub)
    await queue_stub.PauseQueue(pb.PauseQueueRequest(queue="emails"))
    assert await redrive(queue_stub) == 1
    assert await acquire(job_stub) == []
    await queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue="emails"))
    assert [lease.job.id for lease in await acquire(job_stub)] == [buried.id]


async def test_paced_jobs_become_ready_one_after_the_other(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    buried = [await bury(job_stub) for _ in range(4)]
    assert await redrive(queue_stub, jobs_per_second=1) == 4
    back = [await get(job_stub, job.id) for job in buried]
    assert [job.status for job in back] == [
        job_pb2.JOB_STATUS_PENDING,
        *[job_pb2.JOB_STATUS_SCHEDULED] * 3,
    ]
    assert not back[0].HasField("scheduled_for")
    first, *others = [nanoseconds(job.scheduled_for) for job in back[1:]]
    assert 0 < first - nanoseconds(back[1].updated_at) <= 1_000_000_000
    assert [due - first for due in others] == [1_000_000_000, 2_000_000_000]
    assert await miscounts(database.hot) == []


def nanoseconds(time: Timestamp) -> int:
    return time.ToNanoseconds()


async def test_an_origin_that_is_not_there_is_refused(
    queue_stub: QueueStub, job_stub: JobStub, database: Database, dead: queue_pb2.Queue
) -> None:
    await bury(job_stub)
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="letters"))
    async with unchanged(database.hot):
        for name in ("letters", "unknown", "00000000-0000-7000-8000-00000000abcd"):
            refusal = await expect_error(
                redrive(queue_stub, origin_queue=name), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"
            )
            assert refusal.metadata == {"queue": name}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_jobs": -1},
        {"max_jobs": 1_000_001},
        {"jobs_per_second": -1},
        {"jobs_per_second": 10_001},
        {"job_type": "x" * 101},
        {"origin_queue": "x" * 101},
    ],
    ids=str,
)
async def test_a_field_beyond_its_limit_is_named(
    queue_stub: QueueStub, dead: queue_pb2.Queue, wrong: dict[str, Any]
) -> None:
    refusal = await expect_error(
        redrive(queue_stub, **wrong), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
    )
    assert list(refusal.field_violations) == list(wrong)
