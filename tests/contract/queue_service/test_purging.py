"""Purging queues, over real servers."""

from collections.abc import Iterable
from uuid import UUID

import pytest
from grpc import StatusCode
from tests.support.job_calls import acquire_one, complete, create, get
from tests.support.leases import miscounts
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_jobs
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.statuses import FINISHED, WAITING, JobStatus

CAN_BE_PURGED = sorted(WAITING | FINISHED)


async def purge(
    stub: QueueStub, statuses: Iterable[int], *, dry_run: bool = False
) -> tuple[int, int]:
    """How many were cancelled and deleted."""
    request = pb.PurgeQueueRequest(
        queue="emails",
        statuses=[job_pb2.JobStatus.ValueType(status) for status in statuses],
        dry_run=dry_run,
    )
    answer = await stub.PurgeQueue(request)
    return answer.cancelled_jobs, answer.deleted_jobs


async def counts(stub: QueueStub, queue: str = "emails") -> queue_pb2.JobCounts:
    return (await stub.GetQueueStats(pb.GetQueueStatsRequest(queue=queue))).counts


async def fill(stub: QueueStub, database: Database) -> None:
    """As many jobs of each status as its number says, in `emails` and in another queue."""
    for name in ("emails", "other"):
        queue = await make(stub, name)
        for status in JobStatus:
            await insert_jobs(database.hot, UUID(queue.id), status, priorities=[0] * status)


ALL = queue_pb2.JobCounts(pending=1, scheduled=2, processing=3, succeeded=4, failed=5, cancelled=6)


@pytest.mark.parametrize("status", CAN_BE_PURGED, ids=lambda status: status.name)
async def test_the_jobs_of_one_status_go_and_no_others(
    queue_stub: QueueStub, database: Database, status: JobStatus
) -> None:
    await fill(queue_stub, database)
    n = int(status)
    cancelled, deleted = (n, 0) if status in WAITING else (0, n)
    async with unchanged(database.hot):
        assert await purge(queue_stub, [status], dry_run=True) == (cancelled, deleted)
    assert await purge(queue_stub, [status]) == (cancelled, deleted)
    expected = queue_pb2.JobCounts()
    expected.CopyFrom(ALL)
    expected.cancelled += cancelled
    setattr(expected, status.name.lower(), getattr(expected, status.name.lower()) - n)
    assert await counts(queue_stub) == expected
    assert await counts(queue_stub, "other") == ALL
    assert await miscounts(database.hot) == []
    assert await purge(queue_stub, [status]) == (0, 0)


async def test_all_that_can_be_purged_goes_at_once_and_running_jobs_stay(
    queue_stub: QueueStub, database: Database
) -> None:
    await fill(queue_stub, database)
    # What this call cancels ends after it began, so it is not deleted too.
    async with unchanged(database.hot):
        assert await purge(queue_stub, CAN_BE_PURGED, dry_run=True) == (3, 15)
    assert await purge(queue_stub, CAN_BE_PURGED) == (3, 15)
    assert await counts(queue_stub) == queue_pb2.JobCounts(processing=3, cancelled=3)
    assert await purge(queue_stub, CAN_BE_PURGED) == (0, 3)
    assert await counts(queue_stub) == queue_pb2.JobCounts(processing=3)
    assert await counts(queue_stub, "other") == ALL
    assert await miscounts(database.hot) == []


async def test_a_purged_waiting_job_reads_as_cancelled_and_a_purged_finished_one_not_at_all(
    queue_stub: QueueStub, job_stub: JobStub
) -> None:
    await make(queue_stub)
    done = await create(job_stub)
    await complete(job_stub, (await acquire_one(job_stub)).lease_token)
    running = await create(job_stub)
    lease = await acquire_one(job_stub)
    waiting = await create(job_stub)
    assert await purge(queue_stub, [JobStatus.PENDING, JobStatus.SUCCEEDED]) == (1, 1)
    cancelled = await get(job_stub, waiting.id)
    assert cancelled.status == job_pb2.JOB_STATUS_CANCELLED
    assert cancelled.HasField("completed_at")
    await expect_error(get(job_stub, done.id), StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert (await get(job_stub, running.id)).status == job_pb2.JOB_STATUS_PROCESSING
    assert await complete(job_stub, lease.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED


async def test_an_emptied_queue_can_be_deleted(queue_stub: QueueStub, database: Database) -> None:
    queue = await make(queue_stub)
    for status in WAITING:
        await insert_jobs(database.hot, UUID(queue.id), status)
    await purge(queue_stub, WAITING)
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))


@pytest.mark.parametrize(
    ("field", "statuses"),
    [
        ("statuses", []),
        ("statuses", [1, 1]),
        ("statuses[0]", [0]),
        ("statuses[1]", [1, 3]),
        ("statuses[0]", [7]),
    ],
)
async def test_statuses_that_cannot_be_purged_are_refused(
    queue_stub: QueueStub, database: Database, field: str, statuses: list[int]
) -> None:
    await fill(queue_stub, database)
    async with unchanged(database.hot):
        refusal = await expect_error(
            purge(queue_stub, statuses), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
        )
    assert list(refusal.field_violations) == [field]
