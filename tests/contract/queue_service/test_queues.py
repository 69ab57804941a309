"""Making, showing and deleting queues, over a real server."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from tests.support.queue_calls import SETTINGS, get, make, update
from tests.support.refusals import expect_error
from tests.support.rows import insert_jobs, insert_project
from tests.support.stubs import QueueStub

from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.statuses import FINISHED, UNFINISHED, JobStatus

PENDING = job_pb2.JOB_STATUS_PENDING

# -- Create and get ------------------------------------------------------------------------------


async def test_a_new_queue_has_the_defaults_and_is_open(queue_stub: QueueStub) -> None:
    queue = await make(queue_stub)
    assert queue.name == "emails"
    assert UUID(queue.id).version == 7
    assert queue.project_id == str(DEFAULT_PROJECT_ID)
    assert queue.description == ""
    assert queue.priority == 0
    assert queue.settings == queue_pb2.QueueSettings()
    assert queue.is_active
    assert queue.accepts_jobs
    assert not queue.HasField("resume_at")
    age = queue.updated_at.ToDatetime() - queue.created_at.ToDatetime()
    assert timedelta(0) <= age < timedelta(seconds=1)


async def test_a_new_queue_is_as_it_was_asked_for(queue_stub: QueueStub) -> None:
    request = pb.CreateQueueRequest(
        name="a/b:c.d_e-F9", description="für alle ✉", priority=9, settings=SETTINGS
    )
    queue = (await queue_stub.CreateQueue(request)).queue
    assert queue.name == "a/b:c.d_e-F9"
    assert queue.description == "für alle ✉"
    assert queue.priority == 9
    assert queue.settings == SETTINGS
    assert await get(queue_stub, queue.id) == queue


async def test_a_queue_is_found_by_id_in_any_case_and_by_name(queue_stub: QueueStub) -> None:
    queue = await make(queue_stub)
    assert await get(queue_stub, "emails") == queue
    assert await get(queue_stub, queue.id) == queue
    assert await get(queue_stub, queue.id.upper()) == queue


async def test_names_tell_upper_from_lower_case(queue_stub: QueueStub) -> None:
    await make(queue_stub, "emails")
    upper = await make(queue_stub, "Emails")
    assert (await get(queue_stub, "Emails")).id == upper.id


async def test_a_second_queue_of_a_name_is_refused(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    refusal = await expect_error(make(queue_stub), StatusCode.ALREADY_EXISTS, "QUEUE_NAME_TAKEN")
    assert refusal.metadata == {"queue": "emails"}


@pytest.mark.parametrize(
    "request_",
    [
        pb.CreateQueueRequest(name=""),
        pb.CreateQueueRequest(name="-emails"),
        pb.CreateQueueRequest(name="two words"),
        pb.CreateQueueRequest(name="x" * 101),
        pb.CreateQueueRequest(name="emails\n"),
        pb.CreateQueueRequest(name="019ab2e4-0000-7000-8000-00000000ABCD"),
    ],
)
async def test_a_bad_name_is_refused(
    queue_stub: QueueStub, request_: pb.CreateQueueRequest
) -> None:
    refusal = await expect_error(
        queue_stub.CreateQueue(request_), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
    )
    assert list(refusal.field_violations) == ["name"]


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("project_id", pb.CreateQueueRequest(name="q", project_id="default")),
        ("description", pb.CreateQueueRequest(name="q", description="x" * 1001)),
        ("description", pb.CreateQueueRequest(name="q", description="\0")),
        ("priority", pb.CreateQueueRequest(name="q", priority=-1)),
        ("priority", pb.CreateQueueRequest(name="q", priority=10)),
        (
            "settings.max_retries",
            pb.CreateQueueRequest(name="q", settings=queue_pb2.QueueSettings(max_retries=100)),
        ),
        (
            "settings.timeout",
            pb.CreateQueueRequest(name="q", settings=queue_pb2.QueueSettings(timeout=Duration())),
        ),
        (
            "settings.retry_delay",
            pb.CreateQueueRequest(
                name="q", settings=queue_pb2.QueueSettings(retry_delay=Duration(seconds=-1))
            ),
        ),
        (
            "settings.max_retry_delay",
            pb.CreateQueueRequest(
                name="q",
                settings=queue_pb2.QueueSettings(max_retry_delay=Duration(seconds=604_801)),
            ),
        ),
        (
            "settings.backoff_multiplier",
            pb.CreateQueueRequest(
                name="q", settings=queue_pb2.QueueSettings(backoff_multiplier=float("nan"))
            ),
        ),
        (
            "settings.retry_jitter",
            pb.CreateQueueRequest(name="q", settings=queue_pb2.QueueSettings(retry_jitter=1.01)),
        ),
        (
            "settings.max_payload_bytes",
            pb.CreateQueueRequest(name="q", settings=queue_pb2.QueueSettings(max_payload_bytes=0)),
        ),
        (
            "settings.max_concurrent_jobs",
            pb.CreateQueueRequest(
                name="q", settings=queue_pb2.QueueSettings(max_concurrent_jobs=0)
            ),
        ),
        (
            "settings.max_concurrent_jobs",
            pb.CreateQueueRequest(
                name="q", settings=queue_pb2.QueueSettings(max_concurrent_jobs=100_001)
            ),
        ),
        (
            "settings.rate_limit_per_minute",
            pb.CreateQueueRequest(
                name="q", settings=queue_pb2.QueueSettings(rate_limit_per_minute=0)
            ),
        ),
        (
            "settings.rate_limit_per_minute",
            pb.CreateQueueRequest(
                name="q", settings=queue_pb2.QueueSettings(rate_limit_per_minute=1_000_001)
            ),
        ),
        (
            "settings.dead_letter_queue_id",
            pb.CreateQueueRequest(
                name="q", settings=queue_pb2.QueueSettings(dead_letter_queue_id="graveyard")
            ),
        ),
        *(
            (
                f"settings.delay_by_priority.{name}",
                pb.CreateQueueRequest(
                    name="q",
                    settings=queue_pb2.QueueSettings(
                        delay_by_priority=queue_pb2.PriorityDelays(
                            **{name: Duration(seconds=seconds)}
                        )
                    ),
                ),
            )
            for name, seconds in (("low", 3601), ("medium", -1), ("high", 3601), ("urgent", -1))
        ),
    ],
)
async def test_a_field_beyond_its_limit_is_named(
    queue_stub: QueueStub, field: str, request_: pb.CreateQueueRequest
) -> None:
    refusal = await expect_error(
        queue_stub.CreateQueue(request_), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
    )
    assert list(refusal.field_violations) == [field]


# -- Delete --------------------------------------------------------------------------------------


async def test_a_deleted_queue_is_gone_for_every_call(queue_stub: QueueStub) -> None:
    queue = await make(queue_stub)
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    for name in ("emails", queue.id):
        for call in (
            get(queue_stub, name),
            queue_stub.UpdateQueue(update(name, "priority", priority=1)),
            queue_stub.PauseQueue(pb.PauseQueueRequest(queue=name)),
            queue_stub.ResumeQueue(pb.ResumeQueueRequest(queue=name)),
            queue_stub.GetQueueStats(pb.GetQueueStatsRequest(queue=name)),
            queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue=name)),
            queue_stub.PurgeQueue(pb.PurgeQueueRequest(queue=name, statuses=[PENDING])),
            queue_stub.RedriveJobs(pb.RedriveJobsRequest(queue=name)),
        ):
            refusal = await expect_error(call, StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
            assert refusal.metadata == {"queue": name}
    assert not (await queue_stub.ListQueues(pb.ListQueuesRequest())).queues


async def test_the_name_of_a_deleted_queue_is_free(queue_stub: QueueStub) -> None:
    old = await make(queue_stub)
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    new = await make(queue_stub)
    assert new.id != old.id
    assert (await get(queue_stub, "emails")).id == new.id


@pytest.mark.parametrize("status", sorted(UNFINISHED))
async def test_a_queue_with_an_unfinished_job_cannot_be_deleted(
    queue_stub: QueueStub, database: Database, status: JobStatus
) -> None:
    queue = await make(queue_stub)
    await insert_jobs(database.hot, UUID(queue.id), status, priorities=[0, 5])
    refusal = await expect_error(
        queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails")),
        StatusCode.FAILED_PRECONDITION,
        "QUEUE_NOT_EMPTY",
    )
    assert refusal.metadata == {"queue": "emails", "unfinished_jobs": "2"}
    [violation] = refusal.preconditions
    assert violation.subject == f"queues/{queue.id}"
    assert await get(queue_stub, "emails") == queue


async def test_finished_jobs_do_not_keep_a_queue(queue_stub: QueueStub, database: Database) -> None:
    queue = await make(queue_stub)
    other = await make(queue_stub, "other")
    for status in FINISHED:
        await insert_jobs(database.hot, UUID(queue.id), status)
    await insert_jobs(database.hot, UUID(other.id))
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="emails"))
    assert (await get(queue_stub, "other")) == other


# -- Projects ------------------------------------------------------------------------------------


async def test_an_unknown_project_is_refused_by_every_call(queue_stub: QueueStub) -> None:
    await make(queue_stub)
    unknown = str(uuid4())
    named: dict[str, Any] = {"project_id": unknown, "queue": "emails"}
    mask = FieldMask(paths=["priority"])
    for call in (
        queue_stub.CreateQueue(pb.CreateQueueRequest(project_id=unknown, name="q")),
        queue_stub.GetQueue(pb.GetQueueRequest(**named)),
        queue_stub.ListQueues(pb.ListQueuesRequest(project_id=unknown)),
        queue_stub.UpdateQueue(
            pb.UpdateQueueRequest(project_id=unknown, queue="emails", update_mask=mask)
        ),
        queue_stub.DeleteQueue(pb.DeleteQueueRequest(**named)),
        queue_stub.PauseQueue(pb.PauseQueueRequest(**named)),
        queue_stub.ResumeQueue(pb.ResumeQueueRequest(**named)),
        queue_stub.GetQueueStats(pb.GetQueueStatsRequest(**named)),
        queue_stub.PurgeQueue(pb.PurgeQueueRequest(**named, statuses=[PENDING])),
        queue_stub.RedriveJobs(pb.RedriveJobsRequest(**named)),
    ):
        refusal = await expect_error(call, StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
        assert refusal.metadata == {"project": unknown}


async def test_projects_do_not_see_each_others_queues(
    queue_stub: QueueStub, database: Database
) -> None:
    other = str(await insert_project(database.hot))
    ours = await make(queue_stub)
    theirs = (
        await queue_stub.CreateQueue(pb.CreateQueueRequest(project_id=other, name="emails"))
    ).queue
    assert theirs.project_id == other
    assert (await get(queue_stub, "emails")).id == ours.id
    await expect_error(get(queue_stub, theirs.id), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
    await expect_error(
        queue_stub.DeleteQueue(pb.DeleteQueueRequest(project_id=other, queue=ours.id)),
        StatusCode.NOT_FOUND,
        "QUEUE_NOT_FOUND",
    )
    listed = await queue_stub.ListQueues(pb.ListQueuesRequest(project_id=other))
    assert [queue.id for queue in listed.queues] == [theirs.id]
    listed = await queue_stub.ListQueues(pb.ListQueuesRequest(project_id=ours.project_id.upper()))
    assert [queue.id for queue in listed.queues] == [ours.id]


async def test_a_queue_must_be_named(queue_stub: QueueStub) -> None:
    for call in (
        queue_stub.GetQueue(pb.GetQueueRequest()),
        queue_stub.UpdateQueue(update("", "priority")),
        queue_stub.DeleteQueue(pb.DeleteQueueRequest()),
        queue_stub.PauseQueue(pb.PauseQueueRequest()),
        queue_stub.ResumeQueue(pb.ResumeQueueRequest()),
        queue_stub.GetQueueStats(pb.GetQueueStatsRequest()),
        queue_stub.PurgeQueue(pb.PurgeQueueRequest(statuses=[PENDING])),
        queue_stub.RedriveJobs(pb.RedriveJobsRequest()),
    ):
        refusal = await expect_error(call, StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert list(refusal.field_violations) == ["queue"]
