"""Each change of a queue leaves an entry in the audit log, in its transaction."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.dead_letters import insert_dead_letters
from tests.support.queue_calls import SETTINGS, make, update
from tests.support.refusals import expect_error
from tests.support.rows import insert_jobs
from tests.support.snapshots import unchanged
from tests.support.stubs import QueueStub

from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_ORGANISATION_ID, DEFAULT_PROJECT_ID
from taskforge_core.statuses import JobStatus


async def audited(database: Database, queue: queue_pb2.Queue) -> list[tuple[str, Any]]:
    """What was done to the queue, the first first."""
    rows = await database.hot.fetch(
        "SELECT * FROM taskforge.audit_log WHERE target = $1 ORDER BY id", f"queues/{queue.id}"
    )
    assert {row["actor"] for row in rows} == {"everyone"}
    assert {row["project_id"] for row in rows} == {DEFAULT_PROJECT_ID}
    assert {row["organisation_id"] for row in rows} == {DEFAULT_ORGANISATION_ID}
    return [(row["action"], json.loads(row["detail"])) for row in rows]


async def test_each_change_says_what_it_changed(queue_stub: QueueStub, database: Database) -> None:
    dead = await make(queue_stub, "dead")
    queue = await make(
        queue_stub, max_retries=0, timeout=Duration(seconds=90), dead_letter_queue_id=dead.id
    )
    request = update(
        "emails", "priority", "description", "settings.retry_delay", "settings.timeout",
        priority=3, settings=queue_pb2.QueueSettings(retry_delay=Duration(nanos=500_000_000)),
    )  # fmt: skip
    await queue_stub.UpdateQueue(request)
    await queue_stub.PauseQueue(
        pb.PauseQueueRequest(queue="emails", resume_at=Timestamp(seconds=4_000_000_000))
    )
    await queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue=queue.id))
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    assert await audited(database, queue) == [
        (
            "CreateQueue",
            {
                "name": "emails",
                "priority": 0,
                "max_retries": 0,
                "timeout": 90.0,
                "dead_letter_queue_id": dead.id,
            },
        ),
        ("UpdateQueue", {"priority": 3, "retry_delay": 0.5, "timeout": None}),
        (
            "PauseQueue",
            {
                "is_active": False,
                "accepts_jobs": False,
                "resume_at": "2096-10-02T07:06:40+00:00",
            },
        ),
        ("ResumeQueue", {"is_active": True, "accepts_jobs": True, "resume_at": None}),
        ("DeleteQueue", {"name": "emails"}),
    ]


async def test_every_setting_has_a_form_in_the_log(
    queue_stub: QueueStub, database: Database
) -> None:
    request = pb.CreateQueueRequest(name="emails", description="für alle", settings=SETTINGS)
    queue = (await queue_stub.CreateQueue(request)).queue
    [(_, detail)] = await audited(database, queue)
    assert detail["description"] == "für alle"
    assert detail["delays_by_priority"] is True
    assert detail["delay_urgent"] == 0.000001


async def test_what_changes_nothing_leaves_nothing(
    queue_stub: QueueStub, database: Database
) -> None:
    await make(queue_stub)
    async with unchanged(database.hot):
        await queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue="emails"))
        await queue_stub.UpdateQueue(update("emails", "name", name="emails"))
        await queue_stub.PurgeQueue(
            pb.PurgeQueueRequest(queue="emails", statuses=[job_pb2.JOB_STATUS_PENDING])
        )
        await queue_stub.RedriveJobs(pb.RedriveJobsRequest(queue="emails"))
        await expect_error(make(queue_stub), StatusCode.ALREADY_EXISTS, "QUEUE_NAME_TAKEN")


async def test_a_purge_leaves_how_many_jobs_went(queue_stub: QueueStub, database: Database) -> None:
    queue = await make(queue_stub)
    await insert_jobs(database.hot, UUID(queue.id), JobStatus.PENDING, priorities=[0] * 1500)
    await insert_jobs(database.hot, UUID(queue.id), JobStatus.FAILED, priorities=[0] * 3)
    request = pb.PurgeQueueRequest(
        queue="emails",
        statuses=[job_pb2.JOB_STATUS_PENDING, job_pb2.JOB_STATUS_FAILED],
        dry_run=True,
    )
    async with unchanged(database.hot):
        await queue_stub.PurgeQueue(request)
    request.dry_run = False
    await queue_stub.PurgeQueue(request)
    assert (await audited(database, queue))[1:] == [
        ("PurgeQueue", {"deleted_jobs": 3}),
        ("PurgeQueue", {"cancelled_jobs": 1000}),
        ("PurgeQueue", {"cancelled_jobs": 500}),
    ]


async def test_a_redrive_leaves_how_many_jobs_went_back(
    queue_stub: QueueStub, database: Database
) -> None:
    origin = await make(queue_stub)
    dead = await make(queue_stub, "dead")
    await insert_dead_letters(database, UUID(dead.id), UUID(origin.id), priorities=[0] * 1200)
    async with unchanged(database.hot):
        await queue_stub.RedriveJobs(pb.RedriveJobsRequest(queue="dead", dry_run=True))
    await queue_stub.RedriveJobs(pb.RedriveJobsRequest(queue="dead"))
    assert (await audited(database, dead))[1:] == [
        ("RedriveJobs", {"redriven_jobs": 1000}),
        ("RedriveJobs", {"redriven_jobs": 200}),
    ]


@pytest.mark.parametrize("action", ["UpdateQueue", "DeleteQueue", "PurgeQueue", "RedriveJobs"])
async def test_a_change_that_cannot_be_recorded_is_not_made(
    queue_stub: QueueStub, database: Database, action: str
) -> None:
    queue = await make(queue_stub)
    dead = await make(queue_stub, "dead")
    await insert_jobs(database.hot, UUID(queue.id), JobStatus.FAILED)
    await insert_dead_letters(database, UUID(dead.id), UUID(queue.id))
    await database.hot.execute(
        "ALTER TABLE taskforge.audit_log ADD CONSTRAINT full_log CHECK (false) NOT VALID"
    )
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "UpdateQueue": lambda: queue_stub.UpdateQueue(update("emails", "priority", priority=5)),
        "DeleteQueue": lambda: queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails")),
        "PurgeQueue": lambda: queue_stub.PurgeQueue(
            pb.PurgeQueueRequest(queue="emails", statuses=[job_pb2.JOB_STATUS_FAILED])
        ),
        "RedriveJobs": lambda: queue_stub.RedriveJobs(pb.RedriveJobsRequest(queue="dead")),
    }
    async with unchanged(database.hot):
        await expect_error(calls[action](), StatusCode.INTERNAL, "INTERNAL")
