"""The SDK over the real services, both of this process, on the test's own database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.contract.sdk.following import Working
from tests.support.job_replicas import JobReplica
from tests.support.stubs import QueueStub
from tests.support.waiting import PATIENCE

from taskforge_sdk import BlockingClient, Client, Worker


@pytest.fixture
def queue_address(open_folder: Path, queue_stub: QueueStub) -> str:
    return f"unix:{open_folder}/queue"


@pytest.fixture
def job_address(open_folder: Path, replica: JobReplica) -> str:
    return f"unix:{open_folder}/job"


@pytest.fixture
async def client(queue_address: str, job_address: str) -> AsyncIterator[Client]:
    async with Client(queue_address=queue_address, job_address=job_address) as client:
        yield client


@pytest.fixture
def blocking_client(queue_address: str, job_address: str) -> BlockingClient:
    """To be used in a thread: the servers live in the test's loop."""
    return BlockingClient(queue_address=queue_address, job_address=job_address)


@pytest.fixture
async def emails(client: Client) -> str:
    """A queue whose jobs are tried three times, without waiting in between."""
    await client.create_queue("emails")
    await client.update_queue("emails", settings={"retry_jitter": 0})
    return "emails"


@pytest.fixture
def worker(job_address: str) -> Worker:
    return Worker(job_address, concurrency=8, lease_duration=3, grace=PATIENCE)


@pytest.fixture
def working() -> Working:
    """Runs a worker until the end of the block."""

    @asynccontextmanager
    async def work(worker: Worker) -> AsyncIterator["asyncio.Task[None]"]:
        running = asyncio.create_task(worker.run())
        try:
            yield running
        finally:
            worker.stop()
            async with asyncio.timeout(PATIENCE):
                await running

    return work
