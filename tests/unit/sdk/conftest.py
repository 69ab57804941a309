import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import grpc_testing
import pytest
from tests.unit.sdk.fake_channel import Server
from tests.unit.sdk.fake_job_service import PATIENCE, FakeJobService, FakeStream, Working, soon

from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1 import queue_service_pb2 as queues
from taskforge.v1.job_service_pb2_grpc import add_JobServiceServicer_to_server
from taskforge_sdk import BlockingClient, RetryPolicy, Worker


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/jobs.sock"


@pytest.fixture
async def service(address: str) -> AsyncIterator[FakeJobService]:
    fake = FakeJobService()  # type: ignore[abstract]  # the rest answers UNIMPLEMENTED
    server = grpc.aio.server()
    add_JobServiceServicer_to_server(fake, server)
    server.add_insecure_port(address)
    fake.tcp_address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield fake
    fake.settling_allowed.set()
    await server.stop(None)


@pytest.fixture
def worker(address: str) -> Worker:
    """A worker with a heartbeat every 50 ms."""
    return Worker(address, concurrency=4, lease_duration=0.15, worker_id="tested", grace=5)


@pytest.fixture
def working(service: FakeJobService) -> Working:
    """Runs a worker while a test talks to it through its first stream."""

    @asynccontextmanager
    async def work(worker: Worker) -> AsyncIterator[FakeStream]:
        running = asyncio.create_task(worker.run())
        opened = asyncio.create_task(soon(service.streams))
        try:
            await asyncio.wait({running, opened}, return_when=asyncio.FIRST_COMPLETED)
            yield await opened
        finally:
            service.settling_allowed.set()
            worker.stop()
            worker.stop()
            async with asyncio.timeout(PATIENCE):
                await running

    return work


@pytest.fixture
def server() -> Iterator[Server]:
    descriptors = [
        jobs.DESCRIPTOR.services_by_name["JobService"],
        queues.DESCRIPTOR.services_by_name["QueueService"],
    ]
    channel = grpc_testing.channel(descriptors, grpc_testing.strict_real_time())
    with ThreadPoolExecutor(1) as threads:
        yield Server(channel, threads)


@pytest.fixture
def blocking_client(server: Server) -> Iterator[BlockingClient]:
    with BlockingClient(
        queue_channel=server.channel,
        job_channel=server.channel,
        project_id="p",
        retry=RetryPolicy(initial=0.001, maximum=0.002),
    ) as client:
        yield client
