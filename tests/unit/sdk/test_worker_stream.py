"""What comes on the lease stream, and what becomes of it when the stream is lost."""

import asyncio

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from tests.unit.sdk.fake_job_service import (
    DRAINING,
    REPLACED,
    UNAVAILABLE,
    FakeJobService,
    Working,
    happens,
    lease,
    soon,
    status,
)

from taskforge_sdk import JobContext, NotFound, Worker


class Runs:
    """Counts the runs of a handler that goes on until it is let go."""

    def __init__(self, worker: Worker) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.ids: list[str] = []
        self.go_on = asyncio.Event()
        worker.job("work")(self.handle)

    async def handle(self, job: JobContext) -> str:
        self.ids.append(job.id)
        self.started.put_nowait(job.id)
        await self.go_on.wait()
        return job.id


async def test_the_worker_asks_for_no_more_than_it_can_run(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    worker.configure(queues=["emails", "reports"], lease_duration=12, concurrency=7)
    Runs(worker)

    async with working(worker) as stream:
        request = stream.request

    assert request.max_in_flight == 7
    assert list(request.queues) == ["emails", "reports"]
    assert request.lease_duration.ToTimedelta().total_seconds() == 12
    assert request.worker_id == "tested"
    assert request.session_id == worker.session_id


@pytest.mark.parametrize("error", [UNAVAILABLE, DRAINING, REPLACED, None])
async def test_a_lost_stream_is_opened_again_with_the_same_session(
    service: FakeJobService, working: Working, worker: Worker, error: status_pb2.Status | None
) -> None:
    runs = Runs(worker)

    async with working(worker) as first:
        first.send(lease("t1"))
        await soon(runs.started)
        first.end(error)
        second = await soon(service.streams)
        second.send(lease("t2"))
        await soon(runs.started)
        await service.heartbeat_listing("t1", "t2")
        runs.go_on.set()
        settled = {(await soon(service.settlements)).lease_token for _ in range(2)}

    assert second.request == first.request
    assert settled == {"t1", "t2"}


async def test_a_lease_that_is_delivered_again_does_not_run_twice(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    runs = Runs(worker)

    async with working(worker) as first:
        first.send(lease("t1"))
        await soon(runs.started)
        first.end(UNAVAILABLE)
        second = await soon(service.streams)
        second.send(lease("t1"), lease("t2"))
        assert await soon(runs.started) == "job-of-t2"
        runs.go_on.set()
        for _ in range(2):
            await soon(service.settlements)
        second.send(lease("t1"), lease("t2"), lease("t3"))
        assert await soon(runs.started) == "job-of-t3"

    assert runs.ids == ["job-of-t1", "job-of-t2", "job-of-t3"]


async def test_drain_moves_the_worker_to_a_new_connection_and_it_keeps_what_it_holds(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    runs = Runs(worker)
    worker.configure(address=service.tcp_address)

    async with working(worker) as first:
        first.send(lease("t1"))
        await soon(runs.started)
        first.send_drain()
        second = await soon(service.streams)
        assert not first.closed.is_set()
        first.send(lease("t2"))  # was on its way when the server began to leave
        second.send(lease("t3"))
        await soon(runs.started)
        await soon(runs.started)
        first.end(REPLACED)
        await service.heartbeat_listing("t1", "t2", "t3")
        runs.go_on.set()
        settled = {(await soon(service.settlements)).lease_token for _ in range(3)}
        assert service.streams.empty()

    assert second.request == first.request
    assert second.peer != first.peer
    assert settled == {"t1", "t2", "t3"}


async def test_an_event_that_the_worker_does_not_know_is_ignored(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    runs = Runs(worker)
    runs.go_on.set()

    async with working(worker) as stream:
        stream.send_unknown_event()
        stream.send(lease("t1"))
        settlement = await soon(service.settlements)

    assert settlement.lease_token == "t1"


async def test_cancel_stops_the_handler_and_settles_a_failure(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    runs = Runs(worker)

    async with working(worker) as stream:
        stream.send(lease("t1"), lease("t2"))
        await soon(runs.started)
        await soon(runs.started)
        stream.send_cancel("t1")
        settlement = await soon(service.settlements)
        assert service.settlements.empty()

    assert settlement.lease_token == "t1"
    assert settlement.failure.message == "the job was cancelled"


async def test_a_job_cancelled_in_the_message_that_brought_it_never_starts(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    Runs(worker)

    async with working(worker) as stream:
        stream.send(lease("t1"))
        stream.send_cancel("t1")
        settlement = await soon(service.settlements)

    assert settlement.failure.message == "the job was cancelled"


async def test_a_handler_may_succeed_although_it_was_cancelled(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    started = asyncio.Event()

    @worker.job("work")
    async def insist(job: JobContext) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert job.cancelled
            assert job.cancellation_requested
        return "done all the same"

    async with working(worker) as stream:
        stream.send(lease("t1"))
        await happens(started)
        stream.send_cancel("t1")
        settlement = await soon(service.settlements)

    assert settlement.success.result == '"done all the same"'


async def test_a_cancel_that_is_repeated_does_not_disturb_the_clean_up(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    started = asyncio.Event()
    cleaning = asyncio.Event()
    go_on = asyncio.Event()

    @worker.job("work")
    async def tidy(job: JobContext) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await go_on.wait()
            raise ValueError("cleaned up")

    async with working(worker) as stream:
        stream.send(lease("t1"))
        await happens(started)
        stream.send_cancel("t1")
        await happens(cleaning)
        stream.send_cancel("t1")
        stream.send(lease("t2"))  # comes after the second cancel
        await service.heartbeat_listing("t1", "t2")
        go_on.set()
        settlement = await soon(service.settlements)

    assert settlement.lease_token == "t1"
    assert settlement.HasField("failure")


async def test_lost_stops_the_handler_and_settles_nothing(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    stopped = asyncio.Event()
    started = asyncio.Event()

    @worker.job("work")
    async def work(job: JobContext) -> None:
        if job.payload != "quick":
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                stopped.set()

    async with working(worker) as stream:
        stream.send(lease("t1"))
        await happens(started)
        stream.send_lost("t1", "never heard of")
        await happens(stopped)
        stream.send(lease("t2", "quick"))
        settlement = await soon(service.settlements)
        assert settlement.lease_token == "t2"
        assert service.settlements.empty()


async def test_a_timed_out_handler_is_stopped_and_its_lease_stays_listed_until_it_is_lost(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    stopped = asyncio.Event()

    @worker.job("work")
    async def work(job: JobContext) -> None:
        left = job.time_left()
        assert left is not None
        assert left.total_seconds() <= job.payload
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with working(worker) as stream:
        stream.send(lease("t1", 0.05, timeout=0.05))
        await happens(stopped)
        while not service.heartbeats.empty():
            service.heartbeats.get_nowait()
        await service.heartbeat_listing("t1")
        stream.send_lost("t1")
        stream.send(lease("t2", 60, timeout=60))
        await service.heartbeat_listing("t2")

    settled = [service.settlements.get_nowait() for _ in range(service.settlements.qsize())]
    assert [each.lease_token for each in settled] == ["t2"]  # given back when the worker left


async def test_jobs_beyond_the_slots_wait_for_one_and_are_listed_meanwhile(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    worker.configure(concurrency=1)
    runs = Runs(worker)

    async with working(worker) as stream:
        stream.send(lease("t1"), lease("t2"), lease("t3"))
        await soon(runs.started)
        await service.heartbeat_listing("t1", "t2", "t3")
        assert runs.ids == ["job-of-t1"]
        stream.send_cancel("t2")
        assert (await soon(service.settlements)).failure.message == "the job was cancelled"
        runs.go_on.set()
        assert (await soon(service.settlements)).lease_token == "t1"
        assert (await soon(service.settlements)).lease_token == "t3"

    assert runs.ids == ["job-of-t1", "job-of-t3"]


async def test_what_waiting_does_not_cure_ends_the_worker_with_the_error(
    service: FakeJobService, address: str, worker: Worker
) -> None:
    runs = Runs(worker)
    runs.go_on.set()
    running = asyncio.create_task(worker.run())
    stream = await soon(service.streams)
    stream.end(status(code_pb2.NOT_FOUND, "QUEUE_NOT_FOUND", "there is no queue emails"))

    with pytest.raises(NotFound, match="there is no queue emails") as caught:
        async with asyncio.timeout(5):
            await running

    assert caught.value.reason == "QUEUE_NOT_FOUND"
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


async def test_a_worker_without_handlers_does_not_start(worker: Worker) -> None:
    with pytest.raises(ValueError, match="handlers for 1 to 100 types"):
        await worker.run()


def test_a_type_has_one_handler(worker: Worker) -> None:
    worker.job("work")(lambda job: None)
    with pytest.raises(ValueError, match="a handler for 'work' already"):
        worker.job("work")(lambda job: None)
