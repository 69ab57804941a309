"""Real in-process servers of fake services, and what their refusals say."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status

from taskforge.v1 import (
    job_service_pb2,
    job_service_pb2_grpc,
    queue_service_pb2,
    queue_service_pb2_grpc,
)
from taskforge_core.access import Access
from taskforge_core.authentication import NoAuthenticator
from taskforge_core.grpc_server import GrpcServer, Service, build_server
from taskforge_core.settings import Settings

QUEUE_SERVICE = queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"]
JOB_SERVICE = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
SESSION = "0190b5a6-0000-7000-8000-000000000001"

Context = Any
Ready = Callable[[], Awaitable[bool]]

OPEN = Access(NoAuthenticator())


async def always() -> bool:
    return True


class Queues(queue_service_pb2_grpc.QueueServiceServicer):
    """Behaves as the test says: `behave` is called by GetQueue."""

    def __init__(self) -> None:
        self.behave: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
        self.seen: list[Message] = []

    async def GetQueue(
        self, request: queue_service_pb2.GetQueueRequest, context: Context
    ) -> queue_service_pb2.GetQueueResponse:
        self.seen.append(request)
        await self.behave()
        return queue_service_pb2.GetQueueResponse()

    async def CreateQueue(
        self, request: queue_service_pb2.CreateQueueRequest, context: Context
    ) -> queue_service_pb2.CreateQueueResponse:
        self.seen.append(request)
        return queue_service_pb2.CreateQueueResponse()


class WritingJobs(job_service_pb2_grpc.JobServiceServicer):
    """Its stream is a coroutine that writes; it lasts until `drain`."""

    def __init__(self) -> None:
        self.leaving = asyncio.Event()
        self.error: Exception | None = None
        self.ended: list[str] = []

    async def LeaseJobs(  # type: ignore[override]
        self, request: job_service_pb2.LeaseJobsRequest, context: Context
    ) -> None:
        try:
            await context.write(job_service_pb2.LeaseJobsResponse())
            if self.error is not None:
                raise self.error
            await self.leaving.wait()
            self.ended.append("drained")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    async def drain(self) -> None:
        self.leaving.set()


class GeneratingJobs(WritingJobs):
    """The same stream as an asynchronous generator."""

    async def LeaseJobs(  # type: ignore[override]
        self, request: job_service_pb2.LeaseJobsRequest, context: Context
    ) -> AsyncIterator[job_service_pb2.LeaseJobsResponse]:
        try:
            yield job_service_pb2.LeaseJobsResponse()
            if self.error is not None:
                raise self.error
            await self.leaving.wait()
            self.ended.append("drained")
        except (asyncio.CancelledError, GeneratorExit):
            self.ended.append("cancelled")
            raise


# The fakes leave out the methods that no test calls; their bases answer UNIMPLEMENTED for those.


def fake_queues() -> Queues:
    return Queues()  # type: ignore[abstract]


def fake_jobs(jobs_class: type[WritingJobs] = WritingJobs) -> WritingJobs:
    return jobs_class()


def queue_service(servicer: Queues) -> Service:
    return Service(
        QUEUE_SERVICE,
        lambda server: queue_service_pb2_grpc.add_QueueServiceServicer_to_server(servicer, server),
    )


def job_service(servicer: WritingJobs) -> Service:
    return Service(
        JOB_SERVICE,
        lambda server: job_service_pb2_grpc.add_JobServiceServicer_to_server(servicer, server),
    )


@asynccontextmanager
async def running(
    *services: Service, ready: Ready = always, settings: Settings | None = None
) -> AsyncIterator[tuple[GrpcServer, grpc.aio.Channel]]:
    server = build_server(settings or Settings(), "127.0.0.1:0", services, ready=ready, access=OPEN)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield server, channel
    finally:
        await server.stop(hurry=at_once())


def at_once() -> asyncio.Event:
    """What makes a stop hurry."""
    event = asyncio.Event()
    event.set()
    return event


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, dict[str, Message]]:
    """The code, the message and the details by type of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert status is not None
    details: dict[str, Message] = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        detail = kind()
        assert packed.Unpack(detail)
        assert packed.TypeName() not in details
        details[packed.TypeName().rpartition(".")[2]] = detail
    return raised.value.code(), status.message, details


def info(details: dict[str, Message]) -> error_details_pb2.ErrorInfo:
    found = details["ErrorInfo"]
    assert isinstance(found, error_details_pb2.ErrorInfo)
    assert found.domain == "taskforge"
    return found


def health_stub(channel: grpc.aio.Channel) -> Any:
    """The stub, whose type stubs know no methods."""
    return health_pb2_grpc.HealthStub(channel)


def lease_request() -> job_service_pb2.LeaseJobsRequest:
    return job_service_pb2.LeaseJobsRequest(session_id=SESSION, worker_id="w", max_in_flight=1)
