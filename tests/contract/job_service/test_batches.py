"""Creating many jobs in one call: their order, each item's status, all or nothing."""

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import acquire, create, create_all, get, payloads, spec
from tests.support.leases import miscounts
from tests.support.queue_calls import make
from tests.support.refusals import expect_error, expect_status
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub, QueueStub

from taskforge.v1 import job_pb2, queue_pb2, queue_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database


async def test_a_batch_of_one_and_one_of_a_thousand_are_leased_in_their_order(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    [one] = await create_all(job_stub, [spec(payload="0")])
    ids = await create_all(job_stub, [spec(payload=str(n)) for n in range(1, 1001)])
    assert [one, *ids] == sorted({one, *ids})
    leases = await acquire(job_stub, max_in_flight=2000)
    assert payloads(leases) == [str(n) for n in range(1001)]
    assert [lease.job.id for lease in leases] == [one, *ids]
    assert await miscounts(database.hot) == []


async def test_among_equal_priorities_the_order_of_the_batch_counts(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await create_all(job_stub, [spec(payload=str(n), priority=n % 3) for n in range(9)])
    assert payloads(await acquire(job_stub)) == list("258147036")


async def test_the_jobs_of_a_batch_are_as_they_were_asked_for(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    await insert_queue(database.hot, "letters")
    later = Timestamp(seconds=253_402_300_799)
    ready, scheduled = await create_all(
        job_stub,
        [
            spec(payload="[1]", labels={"a": "1"}, traceparent="00-1", tracestate="x=1"),
            spec("letters", job_type="print", scheduled_for=later, max_attempts=7),
        ],
    )
    job = await get(job_stub, ready)
    assert (job.payload, dict(job.labels)) == ("[1]", {"a": "1"})
    assert (job.traceparent, job.tracestate) == ("00-1", "x=1")
    job = await get(job_stub, scheduled)
    assert job.status == job_pb2.JOB_STATUS_SCHEDULED
    assert (job.job_type, job.scheduled_for, job.max_attempts) == ("print", later, 7)


async def mixed_batch(queue_stub: QueueStub) -> list[job_pb2.JobSpec]:
    """A good job first and last, and between them one for each reason to refuse an item."""
    await make(queue_stub)
    await make(queue_stub, "paused")
    await queue_stub.PauseQueue(queue_service_pb2.PauseQueueRequest(queue="paused"))
    await queue_stub.CreateQueue(
        queue_service_pb2.CreateQueueRequest(
            name="small", settings=queue_pb2.QueueSettings(max_payload_bytes=2)
        )
    )
    return [
        spec(payload='"first"'),
        spec("missing"),
        spec("paused"),
        spec("small", payload="123"),
        spec(payload="NaN"),
        spec(request_id="used", payload="2"),
        spec("small", payload='""'),
    ]


async def test_each_item_has_a_status_of_its_own(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    jobs = await mixed_batch(queue_stub)
    await create(job_stub, request_id="used", payload="1")
    answer = await job_stub.BatchCreateJobs(pb.BatchCreateJobsRequest(jobs=jobs))
    first, missing, paused, small, no_json, used, last = answer.results
    assert (await get(job_stub, first.job_id)).payload == '"first"'
    assert (await get(job_stub, last.job_id)).payload == '""'
    refusal = expect_status(missing.error, StatusCode.NOT_FOUND, "QUEUE_NOT_FOUND")
    assert refusal.metadata == {"queue": "missing"}
    refusal = expect_status(paused.error, StatusCode.FAILED_PRECONDITION, "QUEUE_PAUSED")
    assert refusal.metadata == {"queue": "paused"}
    refusal = expect_status(small.error, StatusCode.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE")
    assert refusal.metadata == {"payload_bytes": "3", "max_payload_bytes": "2"}
    refusal = expect_status(no_json.error, StatusCode.INVALID_ARGUMENT, "INVALID_JSON")
    assert refusal.metadata == {"field": "jobs[4].payload"}
    refusal = expect_status(used.error, StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refusal.metadata == {"request_id": "used"}
    assert await database.hot.fetchval("SELECT count(*) FROM taskforge.jobs") == 3
    assert await miscounts(database.hot) == []


async def test_all_or_nothing_creates_nothing_and_names_the_first_item_that_was_refused(
    job_stub: JobStub, queue_stub: QueueStub, database: Database
) -> None:
    first, missing, paused, small, no_json, used, last = await mixed_batch(queue_stub)
    await create(job_stub, request_id="used", payload="1")
    fresh = spec(request_id="fresh")

    def batch(*jobs: job_pb2.JobSpec) -> pb.BatchCreateJobsRequest:
        return pb.BatchCreateJobsRequest(jobs=jobs, all_or_nothing=True, request_id="b")

    async with unchanged(database.hot):
        refusal = await expect_error(
            job_stub.BatchCreateJobs(batch(first, fresh, missing, paused)),
            StatusCode.NOT_FOUND,
            "QUEUE_NOT_FOUND",
        )
        assert refusal.metadata == {"queue": "missing", "index": "2"}
        refusal = await expect_error(
            job_stub.BatchCreateJobs(batch(paused, missing)),
            StatusCode.FAILED_PRECONDITION,
            "QUEUE_PAUSED",
        )
        assert refusal.metadata == {"queue": "paused", "index": "0"}
        refusal = await expect_error(
            job_stub.BatchCreateJobs(batch(first, small)),
            StatusCode.INVALID_ARGUMENT,
            "PAYLOAD_TOO_LARGE",
        )
        assert refusal.metadata["index"] == "1"
        refusal = await expect_error(
            job_stub.BatchCreateJobs(batch(first, last, no_json)),
            StatusCode.INVALID_ARGUMENT,
            "INVALID_JSON",
        )
        assert refusal.metadata == {"field": "jobs[2].payload", "index": "2"}
        refusal = await expect_error(
            job_stub.BatchCreateJobs(batch(fresh, used)),
            StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
        )
        assert refusal.metadata == {"request_id": "used", "index": "1"}
    answer = await job_stub.BatchCreateJobs(batch(first, fresh, last))
    assert all(result.job_id for result in answer.results)


async def test_an_item_that_breaks_a_rule_of_the_contract_refuses_the_whole_call(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    no_time = spec(scheduled_for=Timestamp(seconds=1, nanos=-1))
    async with unchanged(database.hot):
        for broken, field in ((no_time, "scheduled_for"), (spec(priority=11), "priority")):
            refusal = await expect_error(
                job_stub.BatchCreateJobs(pb.BatchCreateJobsRequest(jobs=[spec(), broken])),
                StatusCode.INVALID_ARGUMENT,
                "INVALID_REQUEST",
            )
            assert list(refusal.field_violations) == [f"jobs[1].{field}"]


async def test_a_batch_that_is_too_large_for_a_message_is_refused_before_anything_is_made(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    large = spec(payload='"' + "x" * 262_000 + '"')
    # gRPC itself refuses a request of more than 4 MiB, so there is no reason with it.
    async with unchanged(database.hot):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await job_stub.BatchCreateJobs(pb.BatchCreateJobsRequest(jobs=[large] * 17))
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert len(await create_all(job_stub, [large] * 15)) == 15


async def test_no_item_bears_the_request_id_of_its_call(
    job_stub: JobStub, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    request = pb.BatchCreateJobsRequest(request_id="twice", jobs=[spec(), spec(request_id="twice")])
    async with unchanged(database.hot):
        refusal = await expect_error(
            job_stub.BatchCreateJobs(request), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
        )
    assert list(refusal.field_violations) == ["jobs[1].request_id"]
