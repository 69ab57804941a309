"""How a queue stands, over a real server."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.support.rows import insert_jobs, insert_queue
from tests.support.stubs import QueueStub

from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.statuses import JobStatus


async def stats(stub: QueueStub, queue: str = "emails") -> pb.GetQueueStatsResponse:
    return await stub.GetQueueStats(pb.GetQueueStatsRequest(queue=queue))


async def test_an_empty_queue_counts_nothing_and_has_no_oldest_job(queue_stub: QueueStub) -> None:
    queue = (await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails"))).queue
    assert await stats(queue_stub) == pb.GetQueueStatsResponse(
        queue_id=queue.id, is_active=True, counts=queue_pb2.JobCounts()
    )
    assert await stats(queue_stub, queue.id) == await stats(queue_stub)


async def test_a_paused_queue_says_so(queue_stub: QueueStub) -> None:
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails"))
    await queue_stub.PauseQueue(pb.PauseQueueRequest(queue="emails"))
    assert not (await stats(queue_stub)).is_active


async def test_each_status_is_counted_apart_and_other_queues_are_not(
    queue_stub: QueueStub, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    other_id = await insert_queue(database.hot, "other")
    for status in JobStatus:
        await insert_jobs(database.hot, queue_id, status, priorities=[0] * int(status))
        await insert_jobs(database.hot, other_id, status)
    assert (await stats(queue_stub)).counts == queue_pb2.JobCounts(
        pending=1, scheduled=2, processing=3, succeeded=4, failed=5, cancelled=6
    )


async def test_the_oldest_ready_job_counts_whatever_its_priority(
    queue_stub: QueueStub, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    now = datetime.now(UTC)
    await insert_jobs(database.hot, queue_id, priorities=[9, 0], created_at=now)
    await insert_jobs(database.hot, queue_id, priorities=[5], created_at=now - timedelta(hours=2))
    for status in (JobStatus.SCHEDULED, JobStatus.PROCESSING):
        await insert_jobs(database.hot, queue_id, status, created_at=now - timedelta(days=1))
    other_id = await insert_queue(database.hot, "other")
    await insert_jobs(database.hot, other_id, created_at=now - timedelta(days=1))
    age = (await stats(queue_stub)).oldest_ready_age.ToTimedelta()
    assert timedelta(hours=2) <= age < timedelta(hours=2, minutes=1)


async def test_a_job_that_only_waits_for_its_time_is_not_ready(
    queue_stub: QueueStub, database: Database
) -> None:
    queue_id = UUID((await queue_stub.CreateQueue(pb.CreateQueueRequest(name="emails"))).queue.id)
    await insert_jobs(database.hot, queue_id, JobStatus.SCHEDULED)
    answer = await stats(queue_stub)
    assert answer.counts.scheduled == 1
    assert not answer.HasField("oldest_ready_age")
