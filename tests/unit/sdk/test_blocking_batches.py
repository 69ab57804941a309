"""Many jobs made at once by the blocking client, against gRPC's fake channel."""

import grpc
import pytest
from google.rpc import code_pb2
from tests.unit.sdk.fake_channel import Server, done
from tests.unit.sdk.fake_job_service import status

from taskforge.v1 import job_service_pb2 as jobs
from taskforge_sdk import AlreadyExists, BlockingClient, NewJob, NotFound


def created(request: jobs.BatchCreateJobsRequest) -> jobs.BatchCreateJobsResponse:
    return jobs.BatchCreateJobsResponse(
        results=[jobs.CreatedJob(job_id=spec.payload) for spec in request.jobs]
    )


def test_many_jobs_are_made_in_batches_and_answered_in_their_order(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(
        lambda: blocking_client.create_jobs(
            NewJob("emails", "send", number) for number in range(1_500)
        )
    )
    requests = []
    for size in (1_000, 500):
        request, rpc = server.take("BatchCreateJobs")
        assert len(request.jobs) == size
        requests.append(request)
        rpc.send_initial_metadata(())
        rpc.terminate(created(request), (), grpc.StatusCode.OK, "")

    results = done(call)
    assert [each.job_id for each in results] == [str(number) for number in range(1_500)]
    first, second = (request.request_id for request in requests)
    assert first != second
    assert first.removesuffix("/1") == second.removesuffix("/2")


def test_a_job_of_a_batch_that_was_refused_carries_its_error(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(lambda: blocking_client.create_jobs([NewJob("emails", "send")] * 2))
    refusal = status(code_pb2.NOT_FOUND, "QUEUE_NOT_FOUND")
    server.answer(
        "BatchCreateJobs",
        jobs.BatchCreateJobsResponse(
            results=[jobs.CreatedJob(job_id="j1"), jobs.CreatedJob(error=refusal)]
        ),
    )

    first, second = done(call)
    assert (first.job_id, first.error) == ("j1", None)
    assert second.job_id is None
    assert isinstance(second.error, NotFound)


def test_the_failure_of_a_later_batch_does_not_hide_what_the_earlier_ones_made(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(
        lambda: blocking_client.create_jobs([NewJob("emails", "send")] * 2_500, request_id="mine")
    )
    request, rpc = server.take("BatchCreateJobs")
    rpc.send_initial_metadata(())
    rpc.terminate(created(request), (), grpc.StatusCode.OK, "")
    server.refuse("BatchCreateJobs", status(code_pb2.ALREADY_EXISTS, "REQUEST_ID_REUSED"))

    results = done(call)
    assert [each.error is None for each in results] == [True] * 1_000 + [False] * 1_500
    assert isinstance(results[-1].error, AlreadyExists)


def test_the_failure_of_the_first_batch_is_raised(
    server: Server, blocking_client: BlockingClient
) -> None:
    call = server.during(lambda: blocking_client.create_jobs([NewJob("emails", "send")] * 2_500))
    server.refuse("BatchCreateJobs", status(code_pb2.ALREADY_EXISTS, "REQUEST_ID_REUSED"))

    with pytest.raises(AlreadyExists):
        done(call)
