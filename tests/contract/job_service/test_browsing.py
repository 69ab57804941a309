"""Showing and counting jobs: in every status, and exactly."""

from uuid import UUID, uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import (
    acquire,
    acquire_one,
    cancel,
    complete,
    create,
    create_all,
    duration,
    fail,
    get,
    release,
    retry,
    settle,
    snoozed,
    spec,
    succeeded,
)
from tests.support.leases import miscounts
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from scheduler_service.folding import Folder
from scheduler_service.promoting import Promoter
from taskforge.v1 import job_pb2, queue_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.notifications import Notifier
from taskforge_core.statuses import JobStatus

LATER = Timestamp(seconds=253_402_300_799)


async def job_in(stub: JobStub, status: job_pb2.JobStatus.ValueType) -> job_pb2.Job:
    """A job that has come to this status as jobs do, as GetJob shows it."""
    made = await create(stub, scheduled_for=LATER if status == 2 else None, payload="[1]")
    match status:
        case job_pb2.JOB_STATUS_CANCELLED:
            await cancel(stub, made.id)
        case job_pb2.JOB_STATUS_PROCESSING:
            await acquire_one(stub, worker_id="w")
        case job_pb2.JOB_STATUS_SUCCEEDED:
            await complete(stub, (await acquire_one(stub, worker_id="w")).lease_token, "[2]")
        case job_pb2.JOB_STATUS_FAILED:
            token = (await acquire_one(stub, worker_id="w")).lease_token
            await fail(stub, token, retryable=False)
    return await get(stub, made.id)


ALWAYS = {
    "id", "queue_id", "project_id", "job_type", "payload", "status", "max_attempts", "created_at",
    "updated_at",
}  # fmt: skip
LEASED = {"attempt_count", "started_at", "worker_id"}


@pytest.mark.parametrize(
    ("status", "more"),
    [
        (JobStatus.PENDING, set()),
        (JobStatus.SCHEDULED, {"scheduled_for"}),
        (JobStatus.PROCESSING, LEASED),
        (JobStatus.SUCCEEDED, LEASED | {"completed_at", "result"}),
        (JobStatus.FAILED, LEASED | {"completed_at", "attempts"}),
        (JobStatus.CANCELLED, {"completed_at"}),
    ],
)
async def test_a_job_shows_what_its_status_has_and_nothing_else(
    job_stub: JobStub, database: Database, status: JobStatus, more: set[str]
) -> None:
    await insert_queue(database.hot, "emails")
    job = await job_in(job_stub, job_pb2.JobStatus.ValueType(status))
    assert int(job.status) == status
    assert {field.name for field, _ in job.ListFields()} == ALWAYS | more


async def test_a_job_is_found_by_its_id_in_any_case(job_stub: JobStub, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    job = await create(job_stub)
    assert await get(job_stub, job.id.upper()) == job


async def test_a_job_that_is_not_there_is_not_found(job_stub: JobStub, database: Database) -> None:
    queue_id = str(await insert_queue(database.hot, "emails"))
    for missing in (str(uuid4()), queue_id):
        refusal = await expect_error(get(job_stub, missing), StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
        assert refusal.metadata == {"job": missing}


async def test_a_job_of_a_deleted_queue_is_still_shown(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await make(queue_stub)
    job = await create(job_stub)
    cancelled = await cancel(job_stub, job.id)
    await queue_stub.DeleteQueue(queue_service_pb2.DeleteQueueRequest(queue="emails"))
    assert await get(job_stub, job.id) == cancelled


# -- Counts --------------------------------------------------------------------------------------


async def stats(stub: JobStub, queue: str = "", project_id: str = "") -> pb.GetJobStatsResponse:
    return await stub.GetJobStats(pb.GetJobStatsRequest(queue=queue, project_id=project_id))


async def counted(database: Database, queue_id: UUID | None = None) -> queue_pb2.JobCounts:
    """How many jobs there are, by counting their rows."""
    rows = await database.hot.fetch(
        "SELECT status, count(*) AS n FROM ("
        " SELECT queue_id, status FROM taskforge.jobs"
        " UNION ALL SELECT queue_id, status FROM taskforge.job_history"
        ") AS job WHERE $1::uuid IS NULL OR queue_id = $1::uuid GROUP BY status",
        queue_id,
    )
    return queue_pb2.JobCounts(**{JobStatus(row["status"]).name.lower(): row["n"] for row in rows})


async def test_without_jobs_all_counts_are_zero(job_stub: JobStub, database: Database) -> None:
    queue_id = str(await insert_queue(database.hot, "emails"))
    assert await stats(job_stub) == pb.GetJobStatsResponse(counts=queue_pb2.JobCounts())
    assert await stats(job_stub, "emails") == pb.GetJobStatsResponse(
        queue_id=queue_id, counts=queue_pb2.JobCounts()
    )


async def test_counts_are_those_of_the_queue_or_of_the_project(
    job_stub: JobStub, database: Database
) -> None:
    emails = await insert_queue(database.hot, "emails")
    letters = await insert_queue(database.hot, "letters")
    other = await insert_project(database.hot)
    foreign = await insert_queue(database.hot, "emails", project_id=other)
    for status in JobStatus:
        await insert_jobs(database.hot, emails, status, priorities=[0] * int(status))
        await insert_jobs(database.hot, letters, status)
        await insert_jobs(database.hot, foreign, status, priorities=[0] * 3, project_id=other)
    expected = queue_pb2.JobCounts(
        pending=1, scheduled=2, processing=3, succeeded=4, failed=5, cancelled=6
    )
    for queue in ("emails", str(emails), str(emails).upper()):
        assert await stats(job_stub, queue) == pb.GetJobStatsResponse(
            queue_id=str(emails), total=21, counts=expected
        )
    assert await stats(job_stub) == pb.GetJobStatsResponse(
        total=27,
        counts=queue_pb2.JobCounts(
            pending=2, scheduled=3, processing=4, succeeded=5, failed=6, cancelled=7
        ),
    )
    assert (await stats(job_stub, project_id=str(other))).total == 18


async def test_counts_equal_the_rows_whatever_happens_to_jobs(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    emails = await insert_queue(database.hot, "emails")
    await insert_queue(database.hot, "letters")
    folder = Folder(database.hot)

    async def are_exact() -> None:
        for stub in (job_stub, other_stub):
            answer = await stats(stub)
            assert answer.counts == await counted(database)
            assert (await stats(stub, "emails")).counts == await counted(database, emails)
            assert answer.total == sum(count for _, count in answer.counts.ListFields())

    ids = await create_all(job_stub, [spec(max_attempts=2)] * 10 + [spec("letters")] * 5)
    await create_all(job_stub, [spec(scheduled_for=LATER)] * 3)
    await are_exact()
    leases = await acquire(job_stub, max_in_flight=12)
    await are_exact()
    await folder.run_once()
    tokens = [lease.lease_token for lease in leases]
    await settle(other_stub, [succeeded(token) for token in tokens[:3]])
    await fail(job_stub, tokens[3], retryable=False)
    await fail(job_stub, tokens[4])
    await release(other_stub, tokens[5])
    await settle(job_stub, [snoozed(tokens[6], duration(hours=1))])
    await are_exact()
    await cancel(job_stub, ids[14])
    await cancel(job_stub, leases[7].job.id, interrupt_running=True)
    await fail(job_stub, tokens[7])
    await retry(other_stub, leases[3].job.id)
    await are_exact()
    await folder.run_once()
    await database.hot.execute("UPDATE taskforge.jobs SET scheduled_for = now() WHERE status = 2")
    await Promoter(database.hot, Notifier(database.hot, "scheduler")).run_once()
    await are_exact()
    assert await miscounts(database.hot) == []


async def test_the_counts_of_a_queue_that_is_not_there_are_refused(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with unchanged(database.hot):
        for missing in ("letters", str(uuid4())):
            refusal = await expect_error(
                stats(job_stub, missing), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"
            )
            assert refusal.metadata == {"queue": missing}
