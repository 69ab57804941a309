"""Pauses: what a paused queue refuses, and how it opens again, over real servers."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import acquire, create
from tests.support.queue_calls import get, make, update
from tests.support.refusals import expect_error
from tests.support.stubs import JobStub, QueueStub

from scheduler_service.resuming import Resumer
from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier


def moment(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


SOON = moment(datetime.now(UTC) + timedelta(hours=1))
PAST = moment(datetime.now(UTC) - timedelta(seconds=1))


async def pause(
    stub: QueueStub, *, keep_accepting: bool = False, resume_at: Timestamp | None = None
) -> queue_pb2.Queue:
    request = pb.PauseQueueRequest(
        queue="emails", keep_accepting=keep_accepting, resume_at=resume_at
    )
    return (await stub.PauseQueue(request)).queue


async def resume(stub: QueueStub) -> queue_pb2.Queue:
    return (await stub.ResumeQueue(pb.ResumeQueueRequest(queue="emails"))).queue


def state(queue: queue_pb2.Queue) -> tuple[bool, bool, Timestamp | None]:
    at = queue.resume_at if queue.HasField("resume_at") else None
    return queue.is_active, queue.accepts_jobs, at


OPEN = (True, True, None)


async def test_pausing_and_resuming_can_be_repeated(queue_stub: QueueStub) -> None:
    queue = await make(queue_stub)
    paused = await pause(queue_stub)
    assert state(paused) == (False, False, None)
    assert paused.updated_at.ToNanoseconds() > queue.updated_at.ToNanoseconds()
    assert await pause(queue_stub) == paused

    resumed = await resume(queue_stub)
    assert state(resumed) == OPEN
    assert resumed.updated_at.ToNanoseconds() > paused.updated_at.ToNanoseconds()
    assert await resume(queue_stub) == resumed


async def test_a_queue_can_be_paused_by_its_id(queue_stub: QueueStub) -> None:
    queue = await make(queue_stub)
    paused = (await queue_stub.PauseQueue(pb.PauseQueueRequest(queue=queue.id))).queue
    assert not paused.is_active
    opened = (await queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue=queue.id))).queue
    assert opened.is_active


async def test_is_active_is_the_same_as_pause_and_resume(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    paused = (await queue_stub.UpdateQueue(update("emails", "is_active"))).queue
    assert state(paused) == (False, False, None)
    assert await pause(queue_stub) == paused
    await queue_stub.UpdateQueue(update("emails", "is_active", is_active=True))
    assert state(await get(queue_stub, "emails")) == OPEN


async def test_is_active_forgets_what_a_pause_was_asked_for(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    await pause(queue_stub, keep_accepting=True, resume_at=SOON)
    paused = (await queue_stub.UpdateQueue(update("emails", "is_active"))).queue
    assert state(paused) == (False, False, None)
    await pause(queue_stub, keep_accepting=True, resume_at=SOON)
    opened = await queue_stub.UpdateQueue(update("emails", "is_active", is_active=True))
    assert state(opened.queue) == OPEN


async def test_pausing_a_paused_queue_sets_all_of_it_anew(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    later = moment(SOON.ToDatetime() + timedelta(hours=1))
    assert state(await pause(queue_stub, resume_at=SOON)) == (False, False, SOON)
    assert state(await pause(queue_stub, keep_accepting=True)) == (False, True, None)
    both = await pause(queue_stub, keep_accepting=True, resume_at=later)
    assert state(both) == (False, True, later)
    assert await get(queue_stub, "emails") == both
    assert state(await pause(queue_stub)) == (False, False, None)


async def test_resuming_forgets_when_the_queue_was_to_open(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    await pause(queue_stub, resume_at=SOON)
    assert state(await resume(queue_stub)) == OPEN


async def test_a_time_that_has_passed_opens_a_queue_at_once(queue_stub: QueueStub) -> None:
    queue = await make(queue_stub)
    assert await pause(queue_stub, resume_at=PAST) == queue
    await pause(queue_stub, resume_at=SOON)
    assert state(await pause(queue_stub, resume_at=PAST)) == OPEN


@pytest.mark.parametrize(
    "no_time",
    [
        Timestamp(seconds=-1),
        Timestamp(seconds=253_402_300_800),
        Timestamp(seconds=1, nanos=-1),
        Timestamp(seconds=1, nanos=1_000_000_000),
    ],
    ids=str,
)
async def test_a_time_beyond_the_calendar_is_refused(
    queue_stub: QueueStub, no_time: Timestamp
) -> None:
    queue = await make(queue_stub)
    refusal = await expect_error(
        pause(queue_stub, resume_at=no_time),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert list(refusal.field_violations) == ["resume_at"]
    assert await get(queue_stub, "emails") == queue


async def test_the_last_moment_of_the_calendar_can_be_named(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    last = Timestamp(seconds=253_402_300_799)
    assert state(await pause(queue_stub, resume_at=last)) == (False, False, last)


async def test_a_paused_queue_refuses_jobs_and_hands_out_none(
    queue_stub: QueueStub, job_stub: JobStub
) -> None:
    await make(queue_stub)
    await create(job_stub)
    await pause(queue_stub)
    refusal = await expect_error(create(job_stub), StatusCode.FAILED_PRECONDITION, "QUEUE_PAUSED")
    assert refusal.metadata == {"queue": "emails"}
    assert await acquire(job_stub) == []


async def test_a_queue_that_keeps_accepting_takes_jobs_and_hands_out_none(
    queue_stub: QueueStub, job_stub: JobStub
) -> None:
    await make(queue_stub)
    await pause(queue_stub, keep_accepting=True)
    job = await create(job_stub)
    assert await acquire(job_stub) == []
    await resume(queue_stub)
    assert [lease.job.id for lease in await acquire(job_stub)] == [job.id]


async def test_a_pause_ends_by_itself_and_its_jobs_are_handed_out(
    queue_stub: QueueStub, job_stub: JobStub, database: Database
) -> None:
    await make(queue_stub)
    await pause(queue_stub, keep_accepting=True, resume_at=SOON)
    job = await create(job_stub)
    notifier = Notifier(database.hot, origin="scheduler")
    scheduler = Resumer(database.hot, notifier)
    await scheduler.run_once()
    assert await acquire(job_stub) == []
    # Time cannot be hurried, but the queue's can.
    await database.hot.execute("UPDATE taskforge.queues SET resume_at = clock_timestamp()")
    await scheduler.run_once()
    await notifier.flushed()
    assert [lease.job.id for lease in await acquire(job_stub)] == [job.id]
    assert state(await get(queue_stub, "emails")) == OPEN
