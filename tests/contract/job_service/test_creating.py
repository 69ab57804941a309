"""Creating single jobs: what a new job is like, and why one is refused."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import NO_JSON, acquire_one, cancel, create, get, spec
from tests.support.queue_calls import make
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from scheduler_service.promoting import Promoter
from taskforge.v1 import job_pb2, queue_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.notifications import Notifier

MIB = 1024 * 1024
LATEST = Timestamp(seconds=253_402_300_799)
"""The last second of the year 9999."""


async def test_a_new_job_has_the_defaults_and_is_ready(
    job_stub: JobStub, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "emails")
    before = await database.hot.fetchval("SELECT clock_timestamp()")
    job = await create(job_stub)
    assert UUID(job.id).version == 7
    assert job.created_at.ToDatetime(tzinfo=UTC) - before < timedelta(seconds=5)
    assert job == job_pb2.Job(
        id=job.id,
        queue_id=str(queue_id),
        project_id=str(DEFAULT_PROJECT_ID),
        job_type="send",
        payload="{}",
        status=job_pb2.JOB_STATUS_PENDING,
        max_attempts=3,
        created_at=job.created_at,
        updated_at=job.created_at,
    )
    assert await get(job_stub, job.id) == job


async def test_a_new_job_is_as_it_was_asked_for(job_stub: JobStub, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    asked = spec(
        job_type="a/b:c.d_e-F9",
        payload='{"to":  "ü ✉",\n "n": 1e3, "n": 1000}',
        priority=9,
        max_attempts=100,
        timeout=Duration(seconds=604_800),
        labels={"team": "für alle", "ключ": "", 'quote"\\': "\n"},
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        tracestate="vendor=a b,other=1",
    )
    job = (await job_stub.CreateJob(pb.CreateJobRequest(job=asked))).job
    for shown in (job, await get(job_stub, job.id), (await acquire_one(job_stub)).job):
        for field in ("job_type", "payload", "priority", "max_attempts", "timeout", "labels"):
            assert getattr(shown, field) == getattr(asked, field), field
        assert shown.traceparent == asked.traceparent
        assert shown.tracestate == asked.tracestate


async def test_a_queue_is_named_by_id_in_any_case_or_by_name(
    job_stub: JobStub, database: Database
) -> None:
    queue_id = str(await insert_queue(database.hot, "emails"))
    for queue in ("emails", queue_id, queue_id.upper()):
        assert (await create(job_stub, queue)).queue_id == queue_id


async def test_max_attempts_follow_the_queue_unless_the_job_says_otherwise(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    for retries in (0, 99):
        name = f"retries-{retries}"
        settings = queue_pb2.QueueSettings(max_retries=retries)
        await queue_stub.CreateQueue(
            queue_service_pb2.CreateQueueRequest(name=name, settings=settings)
        )
        assert (await create(job_stub, name)).max_attempts == retries + 1
        for allowed in (1, 100):
            assert (await create(job_stub, name, max_attempts=allowed)).max_attempts == allowed


async def test_any_json_value_is_a_payload_and_is_kept_as_it_was_sent(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    deepest = "[" * 100 + "]" * 100
    for payload in (
        "null",
        " 0 ",
        '"\\u0000"',
        '{"a":1,"a":2}',
        "123456789012345678901234567890.5e-3",
        deepest,
        '{"a":' * 50 + deepest[50:-50] + "}" * 50,
    ):
        job = await create(job_stub, payload=payload)
        assert job.payload == payload
        assert (await get(job_stub, job.id)).payload == payload
        assert (await acquire_one(job_stub)).job.payload == payload


# -- Later ---------------------------------------------------------------------------------------


async def test_a_job_for_later_becomes_ready_when_its_time_has_come(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    job = await create(job_stub, scheduled_for=moment)
    assert job.status == job_pb2.JOB_STATUS_SCHEDULED
    assert job.scheduled_for.ToMicroseconds() == moment.ToMicroseconds()
    assert await get(job_stub, job.id) == job

    promoter = Promoter(database.hot, Notifier(database.hot, "scheduler"))
    await promoter.run_once()
    assert (await get(job_stub, job.id)).status == job_pb2.JOB_STATUS_SCHEDULED
    await database.hot.execute(
        "UPDATE taskforge.jobs SET scheduled_for = scheduled_for - interval '1 hour'"
    )
    await promoter.run_once()
    due = await get(job_stub, job.id)
    assert due.status == job_pb2.JOB_STATUS_PENDING
    assert due.updated_at.ToNanoseconds() > job.updated_at.ToNanoseconds()
    leased = (await acquire_one(job_stub)).job
    assert leased.id == job.id
    assert leased.scheduled_for == due.scheduled_for


async def test_a_time_that_has_passed_means_at_once(job_stub: JobStub, database: Database) -> None:
    await insert_queue(database.hot, "emails")
    for moment in (Timestamp(), Timestamp(seconds=1_000_000_000, nanos=999_999_999)):
        job = await create(job_stub, scheduled_for=moment)
        assert job.status == job_pb2.JOB_STATUS_PENDING
        assert job.scheduled_for.seconds == moment.seconds
        assert await get(job_stub, job.id) == job


async def test_a_job_can_wait_until_the_end_of_the_year_9999(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    job = await create(job_stub, scheduled_for=LATEST)
    assert job.status == job_pb2.JOB_STATUS_SCHEDULED
    assert job.scheduled_for == LATEST
    assert await get(job_stub, job.id) == job


# -- Refusals ------------------------------------------------------------------------------------


async def test_a_job_for_a_queue_that_is_not_there_is_refused(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with unchanged(database.hot):
        for queue in ("letters", str(uuid4())):
            refusal = await expect_error(
                create(job_stub, queue), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"
            )
            assert refusal.metadata == {"queue": queue}


async def test_a_deleted_queue_takes_no_job_and_a_new_one_of_its_name_does(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    old = await make(queue_stub)
    await cancel(job_stub, (await create(job_stub)).id)
    await queue_stub.DeleteQueue(queue_service_pb2.DeleteQueueRequest(queue="emails"))
    for name in ("emails", old.id):
        await expect_error(create(job_stub, name), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
    new = await make(queue_stub)
    assert (await create(job_stub)).queue_id == new.id


async def test_a_paused_queue_takes_no_job_until_it_is_resumed(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    queue = await make(queue_stub)
    await create(job_stub)
    await queue_stub.PauseQueue(queue_service_pb2.PauseQueueRequest(queue="emails"))
    async with unchanged(database.hot):
        refusal = await expect_error(
            create(job_stub, request_id="r"), StatusCode.FAILED_PRECONDITION, "QUEUE_PAUSED"
        )
        assert refusal.metadata == {"queue": "emails"}
        [violation] = refusal.preconditions
        assert violation.subject == "queues/emails"
        await expect_error(
            create(job_stub, queue.id), StatusCode.FAILED_PRECONDITION, "QUEUE_PAUSED"
        )
    await queue_stub.ResumeQueue(queue_service_pb2.ResumeQueueRequest(queue="emails"))
    await create(job_stub, request_id="r")


async def test_a_payload_that_is_no_json_document_is_refused(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with unchanged(database.hot):
        for payload in NO_JSON:
            refusal = await expect_error(
                create(job_stub, payload=payload), StatusCode.INVALID_ARGUMENT, "INVALID_JSON"
            )
            assert refusal.metadata == {"field": "job.payload"}
            assert list(refusal.field_violations) == ["job.payload"]


def document(size: int) -> str:
    """A JSON document of so many bytes, some of them of characters that have two."""
    text = f'"ü{"x" * (size - 4)}"'
    assert len(text.encode()) == size
    return text


async def test_a_payload_may_be_as_large_as_its_queue_takes_and_no_byte_larger(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    await queue_stub.CreateQueue(
        queue_service_pb2.CreateQueueRequest(
            name="small", settings=queue_pb2.QueueSettings(max_payload_bytes=100)
        )
    )
    await queue_stub.CreateQueue(
        queue_service_pb2.CreateQueueRequest(
            name="large", settings=queue_pb2.QueueSettings(max_payload_bytes=MIB)
        )
    )
    await make(queue_stub, "default")
    for queue, limit in (("small", 100), ("default", 256 * 1024), ("large", MIB)):
        for size in (limit - 1, limit):
            payload = document(size)
            assert (await create(job_stub, queue, payload=payload)).payload == payload
    for queue, limit in (("small", 100), ("default", 256 * 1024)):
        async with unchanged(database.hot):
            refusal = await expect_error(
                create(job_stub, queue, payload=document(limit + 1)),
                StatusCode.INVALID_ARGUMENT,
                "PAYLOAD_TOO_LARGE",
            )
        assert refusal.metadata == {
            "payload_bytes": str(limit + 1),
            "max_payload_bytes": str(limit),
        }


async def test_no_payload_is_larger_than_the_contract_allows(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    async with unchanged(database.hot):
        refusal = await expect_error(
            create(job_stub, payload=document(MIB + 1)),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        )
    assert list(refusal.field_violations) == ["job.payload"]


async def test_an_empty_payload_needs_room_for_its_default(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await queue_stub.CreateQueue(
        queue_service_pb2.CreateQueueRequest(
            name="tiny", settings=queue_pb2.QueueSettings(max_payload_bytes=1)
        )
    )
    assert (await create(job_stub, "tiny", payload="1")).payload == "1"
    await expect_error(create(job_stub, "tiny"), StatusCode.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE")


async def test_the_largest_values_of_each_field_are_taken(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "q" * 100)
    job = await create(
        job_stub,
        "q" * 100,
        job_type="t" * 100,
        priority=9,
        max_attempts=100,
        timeout=Duration(seconds=604_800),
        labels={f"{n:02}" + "ü" * 61: "✉" * 255 for n in range(32)},
        traceparent="~" * 64,
        tracestate=" " * 512,
        request_id="ü" * 128,
    )
    assert await get(job_stub, job.id) == job
