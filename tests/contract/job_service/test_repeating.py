"""Repeated creations: the same request_id gives the same job, whatever became of it."""

import asyncio
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import acquire_one, complete, create, create_all, get, spec
from tests.support.queue_calls import make, update
from tests.support.refusals import expect_error, expect_status
from tests.support.rows import insert_project, insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from taskforge.v1 import job_pb2, queue_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


async def test_a_repeated_creation_returns_the_first_job(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    first = await create(job_stub, request_id="r", payload="1", labels={"a": "1", "b": "2"})
    async with unchanged(database.hot):
        again = await create(job_stub, request_id="r", payload="1", labels={"b": "2", "a": "1"})
    assert again == first


async def test_a_repeated_creation_returns_the_job_as_it_stands_now(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    job = await create(job_stub, request_id="r")
    lease = await acquire_one(job_stub)
    assert (await create(job_stub, request_id="r")).status == job_pb2.JOB_STATUS_PROCESSING
    await complete(job_stub, lease.lease_token, "42")
    async with unchanged(database.hot):
        again = await create(job_stub, request_id="r")
    assert again.id == job.id
    assert again.status == job_pb2.JOB_STATUS_SUCCEEDED
    assert again.result == "42"


async def test_a_creation_is_repeatable_beyond_its_jobs_life(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    job = await create(job_stub, request_id="r")
    await complete(job_stub, (await acquire_one(job_stub)).lease_token)
    await database.hot.execute("DELETE FROM taskforge.job_history")
    assert await create(job_stub, request_id="r") == job_pb2.Job(
        id=job.id, project_id=str(DEFAULT_PROJECT_ID)
    )


async def test_a_repetition_is_answered_whatever_the_queue_says_by_now(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    await make(queue_stub)
    job = await create(job_stub, request_id="r", payload='"x"')
    [batched] = await create_all(job_stub, [spec(payload='"x"')], request_id="b")
    small = queue_pb2.QueueSettings(max_payload_bytes=1)
    await queue_stub.UpdateQueue(update("emails", "settings.max_payload_bytes", settings=small))
    await queue_stub.PauseQueue(queue_service_pb2.PauseQueueRequest(queue="emails"))
    async with unchanged(database.hot):
        assert (await create(job_stub, request_id="r", payload='"x"')).id == job.id
        assert await create_all(job_stub, [spec(payload='"x"')], request_id="b") == [batched]


async def test_the_same_request_id_with_another_content_is_refused(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    queue_id = await insert_queue(database.hot, "letters")
    job = await create(job_stub, "letters", request_id="r", payload="1")
    later = Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    async with unchanged(database.hot):
        for other in (
            spec("letters", payload="2"),
            spec("letters", payload="1 "),
            spec("letters", payload="1", priority=1),
            spec("letters", payload="1", job_type="other"),
            spec("letters", payload="1", labels={"a": ""}),
            spec("letters", payload="1", scheduled_for=later),
            spec("emails", payload="1"),
            # The same queue, but not the request as it was sent.
            spec(str(queue_id), payload="1"),
        ):
            other.request_id = "r"
            refusal = await expect_error(
                job_stub.CreateJob(pb.CreateJobRequest(job=other)),
                StatusCode.ALREADY_EXISTS,
                "REQUEST_ID_REUSED",
            )
            assert refusal.metadata == {"request_id": "r"}
    assert (await create(job_stub, "letters", request_id="r", payload="1")).id == job.id


async def test_a_refused_creation_is_not_remembered(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await expect_error(
        create(job_stub, request_id="r", payload="1"), StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND"
    )
    await make(queue_stub)
    await create(job_stub, request_id="r", payload="2")


async def test_one_request_id_makes_one_job_however_many_ask_at_once_and_where(
    job_stub: JobStub, other_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    jobs = await asyncio.gather(
        *(create(stub, request_id="r") for stub in (job_stub, other_stub) * 20)
    )
    assert len({job.id for job in jobs}) == 1
    batches = await asyncio.gather(
        *(
            create_all(stub, [spec(payload="1"), spec(payload="2")], request_id="b")
            for stub in (job_stub, other_stub) * 10
        )
    )
    assert len({tuple(ids) for ids in batches}) == 1
    assert await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs") == 3


async def test_request_ids_belong_to_their_project(job_stub: JobStub, database: Database) -> None:
    other = await insert_project(database.hot)
    await insert_queue(database.hot, "emails")
    await insert_queue(database.hot, "emails", project_id=other)
    ours = await create(job_stub, request_id="r", payload="1")
    request = pb.CreateJobRequest(project_id=str(other), job=spec(request_id="r", payload="2"))
    theirs = (await job_stub.CreateJob(request)).job
    assert theirs.id != ours.id
    assert theirs.project_id == str(other)


# -- Batches -------------------------------------------------------------------------------------


async def test_a_repeated_batch_gets_the_first_answer_its_errors_included(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    await make(queue_stub)
    request = pb.BatchCreateJobsRequest(
        jobs=[spec(payload="1"), spec("letters"), spec(payload="{"), spec(payload="2")],
        request_id="b",
    )
    first = await job_stub.BatchCreateJobs(request)
    assert [result.WhichOneof("result") for result in first.results] == [
        "job_id",
        "error",
        "error",
        "job_id",
    ]
    await make(queue_stub, "letters")
    async with unchanged(database.hot):
        assert await job_stub.BatchCreateJobs(request) == first


async def test_a_batch_of_another_content_is_refused_as_a_whole(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(payload="1"), spec(payload="2")], request_id="b")
    await create(job_stub, request_id="single")
    async with unchanged(database.hot):
        for jobs, fields in (
            ([spec(payload="2"), spec(payload="1")], {}),
            ([spec(payload="1")], {}),
            ([spec(payload="1"), spec(payload="2")], {"all_or_nothing": True}),
        ):
            refusal = await expect_error(
                create_all(job_stub, jobs, request_id="b", **fields),
                StatusCode.ALREADY_EXISTS,
                "REQUEST_ID_REUSED",
            )
            assert refusal.metadata == {"request_id": "b"}
        # A single creation and a batch share the ids of their project.
        await expect_error(
            create(job_stub, request_id="b", payload="1"),
            StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
        )
        await expect_error(
            create_all(job_stub, [spec()], request_id="single"),
            StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
        )


async def test_a_batch_that_created_nothing_for_all_or_nothing_may_come_again(
    job_stub: JobStub, queue_stub: QueueStub
) -> None:
    await make(queue_stub)
    jobs = [spec(), spec("letters")]
    await expect_error(
        create_all(job_stub, jobs, request_id="b", all_or_nothing=True),
        StatusCode.NOT_FOUND,
        "QUEUE_NOT_FOUND",
    )
    await make(queue_stub, "letters")
    ids = await create_all(job_stub, jobs, request_id="b", all_or_nothing=True)
    assert await create_all(job_stub, jobs, request_id="b", all_or_nothing=True) == ids


async def test_an_item_of_a_batch_is_repeatable_in_any_batch_and_alone(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    alone = await create(job_stub, request_id="r1", payload="1")
    repeated = spec(request_id="r1", payload="1")
    first, second = await create_all(
        job_stub, [repeated, spec(request_id="r2", payload="2")], all_or_nothing=True
    )
    assert first == alone.id
    async with unchanged(database.hot):
        assert (await create(job_stub, request_id="r2", payload="2")).id == second
        assert await create_all(
            job_stub, [spec(request_id="r2", payload="2"), repeated, repeated]
        ) == [second, first, first]


async def test_items_of_one_batch_with_one_request_id_are_one_job(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    same = spec(request_id="r", payload="1")
    answer = await job_stub.BatchCreateJobs(
        pb.BatchCreateJobsRequest(jobs=[same, same, spec(request_id="r", payload="2")])
    )
    first, second, third = answer.results
    assert first.job_id == second.job_id
    assert (await get(job_stub, first.job_id)).payload == "1"
    expect_status(third.error, StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs") == 1
