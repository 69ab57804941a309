"""A worker whose key is refused: it goes on with another one, or stops and says why."""

import asyncio
import logging

import pytest
from google.rpc import code_pb2
from tests.unit.sdk.fake_job_service import (
    PATIENCE,
    REVOKED,
    FakeJobService,
    Working,
    happens,
    lease,
    soon,
    status,
)

from taskforge_sdk import JobContext, PermissionDenied, Unauthenticated, Worker


@pytest.fixture
def worker(address: str) -> Worker:
    """A worker with a heartbeat every 50 ms, and more grace than the test has patience."""
    return Worker(address, concurrency=4, lease_duration=0.15, grace=10 * PATIENCE, api_key="old")


@pytest.fixture(autouse=True)
def started(worker: Worker) -> asyncio.Event:
    """Set when a handler runs; it does not end by itself."""
    started = asyncio.Event()

    @worker.job("work")
    async def handle(job: JobContext) -> None:
        started.set()
        await asyncio.Event().wait()

    @worker.job("quick")
    async def handle_at_once(job: JobContext) -> None:
        pass

    return started


async def end_of(running: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(PATIENCE):
        await running


async def test_every_call_of_a_worker_is_sent_with_its_key(
    service: FakeJobService, worker: Worker, working: Working
) -> None:
    async with working(worker) as stream:
        stream.send(lease("t1", job_type="quick"))
        await soon(service.settlements)
        await soon(service.heartbeats)
    assert service.keys == {"LeaseJobs": "old", "Heartbeat": "old", "BatchSettleJobs": "old"}


async def test_a_worker_whose_key_is_revoked_stops_at_once_and_says_so(
    service: FakeJobService,
    worker: Worker,
    started: asyncio.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = asyncio.create_task(worker.run())
    stream = await soon(service.streams)
    stream.send(lease("t1"))
    await happens(started)
    service.revoked_keys = {"old"}
    stream.end(REVOKED)
    with pytest.raises(Unauthenticated) as refused:
        await end_of(running)
    assert refused.value.reason == "CREDENTIAL_REVOKED"
    stops = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the worker stops, since its credential is refused" in stops[0].getMessage()


async def test_a_refused_heartbeat_is_enough_to_stop(
    service: FakeJobService, worker: Worker
) -> None:
    running = asyncio.create_task(worker.run())
    await soon(service.streams)
    service.heartbeat_errors = [status(code_pb2.PERMISSION_DENIED, "PERMISSION_MISSING")]
    with pytest.raises(PermissionDenied):
        await end_of(running)


@pytest.mark.parametrize("by", ["the stream", "a heartbeat"])
async def test_a_worker_goes_on_with_another_key(
    service: FakeJobService, worker: Worker, by: str
) -> None:
    keys = iter(["old", "new"])
    worker.configure(api_key=lambda: next(keys))
    running = asyncio.create_task(worker.run())
    stream = await soon(service.streams)
    if by == "a heartbeat":
        service.revoked_keys = {"old"}
        await soon(service.heartbeats)
        await until_key(service, "Heartbeat", "new")
    service.revoked_keys = {"old"}
    stream.end(REVOKED)
    stream = await soon(service.streams)
    assert service.keys["LeaseJobs"] == "new"
    stream.send(lease("t1", job_type="quick"))
    await soon(service.settlements)
    assert service.keys["BatchSettleJobs"] == "new"
    worker.stop()
    await end_of(running)


async def test_a_worker_goes_on_though_each_key_ends_before_its_stream_has_said_anything(
    service: FakeJobService, worker: Worker
) -> None:
    keys = iter(["first", "second", "third", "fourth"])
    # No heartbeat comes in between, which would ask for a key of its own.
    worker.configure(api_key=lambda: next(keys), lease_duration=30)
    running = asyncio.create_task(worker.run())
    for key in ("first", "second", "third"):
        stream = await soon(service.streams)
        assert service.keys["LeaseJobs"] == key
        stream.end(status(code_pb2.UNAUTHENTICATED, "CREDENTIAL_EXPIRED"))
    await soon(service.streams)
    assert service.keys["LeaseJobs"] == "fourth"
    worker.stop()
    await end_of(running)


async def until_key(service: FakeJobService, rpc: str, key: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while service.keys.get(rpc) != key:
            await service.heartbeats.get()


async def test_a_worker_whose_other_key_is_refused_too_stops(
    service: FakeJobService, worker: Worker
) -> None:
    service.revoked_keys = {"old", "older"}
    keys = iter(["old", "older", "newest"])
    # No heartbeat comes in between, which would ask for a key of its own.
    worker.configure(api_key=lambda: next(keys), lease_duration=30)
    with pytest.raises(Unauthenticated):
        await end_of(asyncio.create_task(worker.run()))
    assert next(keys) == "newest"


async def test_a_worker_waits_for_what_gives_its_key(
    service: FakeJobService, worker: Worker
) -> None:
    answers = [None, None, "new"]

    def give() -> str:
        answer = answers.pop(0)
        if answer is None:
            raise TimeoutError
        return answer

    worker.configure(api_key=give)
    running = asyncio.create_task(worker.run())
    await soon(service.streams)
    assert service.keys["LeaseJobs"] == "new"
    worker.stop()
    await end_of(running)
