"""The asynchronous client over a real server; what both clients share is tested on the other."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import code_pb2, status_pb2
from tests.unit.sdk.fake_job_service import UNAVAILABLE, abort, status

from taskforge.v1 import job_pb2, queue_pb2
from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1 import queue_service_pb2 as queues
from taskforge.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from taskforge.v1.queue_service_pb2_grpc import (
    QueueServiceServicer,
    add_QueueServiceServicer_to_server,
)
from taskforge_sdk import (
    BlockingClient,
    Client,
    DeadlineExceeded,
    JobStatus,
    NewJob,
    PreconditionFailed,
    RetryPolicy,
    Unavailable,
)

Context = grpc.aio.ServicerContext[Any, Any]


class Services(JobServiceServicer, QueueServiceServicer):
    """Both services; each call first fails with the next of `errors`."""

    def __init__(self) -> None:
        self.errors: list[status_pb2.Status] = []
        self.requests: list[Any] = []
        self.seconds_left: list[float] = []

    async def _seen(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        if self.errors:
            await abort(context, self.errors.pop(0))

    async def CreateJob(
        self, request: jobs.CreateJobRequest, context: Context
    ) -> jobs.CreateJobResponse:
        await self._seen(request, context)
        return jobs.CreateJobResponse(job=job_pb2.Job(id="j1", payload=request.job.payload))

    async def BatchCreateJobs(
        self, request: jobs.BatchCreateJobsRequest, context: Context
    ) -> jobs.BatchCreateJobsResponse:
        await self._seen(request, context)
        return jobs.BatchCreateJobsResponse(
            results=[jobs.CreatedJob(job_id=spec.payload) for spec in request.jobs]
        )

    async def ListQueues(
        self, request: queues.ListQueuesRequest, context: Context
    ) -> queues.ListQueuesResponse:
        await self._seen(request, context)
        page = int(request.page_token or "1")
        return queues.ListQueuesResponse(
            queues=[queue_pb2.Queue(name=f"queue {page}")],
            next_page_token=str(page + 1) if page < 3 else "",
        )

    async def PauseQueue(
        self, request: queues.PauseQueueRequest, context: Context
    ) -> queues.PauseQueueResponse:
        await self._seen(request, context)
        return queues.PauseQueueResponse(queue=queue_pb2.Queue(name=request.queue))

    async def PurgeQueue(
        self, request: queues.PurgeQueueRequest, context: Context
    ) -> queues.PurgeQueueResponse:
        self.seconds_left.append(context.time_remaining())
        await self._seen(request, context)
        return queues.PurgeQueueResponse(deleted_jobs=7)

    async def RedriveJobs(
        self, request: queues.RedriveJobsRequest, context: Context
    ) -> queues.RedriveJobsResponse:
        self.seconds_left.append(context.time_remaining())
        await self._seen(request, context)
        return queues.RedriveJobsResponse(redriven_jobs=3)


@pytest.fixture
async def services(address: str) -> AsyncIterator[Services]:
    services = Services()  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
    server = grpc.aio.server()
    add_JobServiceServicer_to_server(services, server)
    add_QueueServiceServicer_to_server(services, server)
    server.add_insecure_port(address)
    await server.start()
    yield services
    await server.stop(None)


@pytest.fixture
async def client(address: str, services: Services) -> AsyncIterator[Client]:
    retry = RetryPolicy(initial=0.001, maximum=0.002)
    async with Client(queue_address=address, job_address=address, retry=retry) as client:
        yield client


async def test_a_creation_is_repeated_with_the_same_request_id(
    client: Client, services: Services
) -> None:
    services.errors = [UNAVAILABLE, UNAVAILABLE]
    job = await client.create_job("emails", "send", {"to": 1})

    assert job.payload == {"to": 1}
    assert len(services.requests) == 3
    assert services.requests[0] == services.requests[1] == services.requests[2]


async def test_an_error_says_all_that_the_server_said(client: Client, services: Services) -> None:
    services.errors = [status(code_pb2.FAILED_PRECONDITION, "QUEUE_PAUSED", "emails is paused")]

    with pytest.raises(PreconditionFailed, match="emails is paused") as caught:
        await client.create_job("emails", "send")
    assert caught.value.reason == "QUEUE_PAUSED"
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_list_goes_through_all_pages(client: Client, services: Services) -> None:
    names = [queue.name async for queue in client.list_queues(page_size=1)]

    assert names == ["queue 1", "queue 2", "queue 3"]
    assert [request.page_size for request in services.requests] == [1, 1, 1]


async def test_many_jobs_are_made_in_batches(client: Client, services: Services) -> None:
    results = await client.create_jobs(NewJob("emails", "send", n) for n in range(1_001))

    assert [each.job_id for each in results] == [str(n) for n in range(1_001)]
    assert [len(request.jobs) for request in services.requests] == [1_000, 1]


async def test_large_jobs_are_spread_over_requests_that_a_server_takes(
    client: Client, services: Services
) -> None:
    results = await client.create_jobs(NewJob("emails", "send", "x" * 1_000_000) for _ in range(7))

    assert all(each.error is None for each in results)
    assert [len(request.jobs) for request in services.requests] == [3, 3, 1]


async def test_what_the_server_does_not_offer_is_an_error_of_ours(client: Client) -> None:
    with pytest.raises(Exception, match="not implemented") as caught:
        await client.get_job("j1")
    assert type(caught.value).__name__ == "ServerError"


async def test_no_server_is_unavailable_and_not_a_traceback_of_grpcs(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/nobody.sock"
    async with Client(job_address=address, timeout=0.2) as client:
        with pytest.raises(Unavailable):
            await client.get_job("j1")
        with pytest.raises(Unavailable):
            await client.retry_job("j1")


async def test_a_closed_client_opens_again_when_it_is_used(
    client: Client, services: Services
) -> None:
    await client.pause_queue("emails")
    await client.close()
    queue = await client.pause_queue("emails")

    assert queue.name == "emails"


async def test_what_goes_through_many_jobs_has_ten_minutes_in_each_attempt(
    client: Client, services: Services
) -> None:
    services.errors = [UNAVAILABLE]
    purged = await client.purge_queue("emails", [JobStatus.FAILED])
    redriven = await client.redrive_jobs("dead")

    assert (purged.deleted_jobs, redriven) == (7, 3)
    assert len(services.seconds_left) == 3
    assert all(590 < left < 610 for left in services.seconds_left)


def test_deadlines_are_an_absence_of_answers() -> None:
    assert issubclass(DeadlineExceeded, Unavailable)


def test_both_clients_offer_the_same_calls() -> None:
    def surface(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert surface(Client) == surface(BlockingClient)
