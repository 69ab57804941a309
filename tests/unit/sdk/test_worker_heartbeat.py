"""What the heartbeat lists, carries and hears."""

import asyncio

import pytest
from tests.unit.sdk.fake_job_service import (
    UNAVAILABLE,
    FakeJobService,
    Working,
    happens,
    lease,
    soon,
    status,
)

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import InvalidRequest, JobContext, Worker


async def test_a_heartbeat_lists_all_that_is_held_and_its_sequence_grows(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    release = asyncio.Event()

    @worker.job("work")
    async def wait(job: JobContext) -> None:
        await release.wait()

    async with working(worker) as stream:
        stream.send(lease("t1"), lease("t2"))
        first = await service.heartbeat_listing("t1", "t2")
        stream.send(lease("t3"))
        second = await service.heartbeat_listing("t1", "t2", "t3")
        third = await service.heartbeat_listing("t1", "t2", "t3")
        release.set()

    assert 1 <= first.sequence < second.sequence < third.sequence
    assert first.session_id == stream.request.session_id == third.session_id


async def test_a_lease_stays_listed_until_its_settle_was_answered(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> None:
        if job.payload == "wait":
            await asyncio.Event().wait()

    async with working(worker) as stream:
        service.settling_allowed.clear()
        stream.send(lease("t1"), lease("t2", "wait"))
        await soon(service.settle_calls)
        await service.heartbeat_listing("t1", "t2")
        await service.heartbeat_listing("t1", "t2")
        service.settling_allowed.set()
        await soon(service.settlements)
        await service.heartbeat_listing("t2")


async def test_a_worker_that_holds_nothing_speaks_too(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    worker.job("work")(lambda job: None)

    async with working(worker):
        heartbeats = [await soon(service.heartbeats) for _ in range(3)]

    assert [list(each.held) for each in heartbeats] == [[], [], []]
    assert [each.sequence for each in heartbeats] == [1, 2, 3]


async def test_progress_travels_once_and_the_last_wins(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> None:
        job.set_progress({"done": 1})
        job.set_progress({"done": 2})
        await asyncio.Event().wait()

    async with working(worker) as stream:
        stream.send(lease("t1"))
        first = await service.heartbeat_listing("t1")
        second = await service.heartbeat_listing("t1")

    assert first.held[0].progress == '{"done":2}'
    assert not second.held[0].HasField("progress")


async def test_progress_does_not_wait_for_a_long_lease(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    worker.configure(lease_duration=3_600)

    @worker.job("work")
    def work(job: JobContext) -> None:
        job.set_progress("half")

    service.settling_allowed.clear()
    async with working(worker) as stream:
        stream.send(lease("t1"))
        heartbeat = await service.heartbeat_listing("t1")

    assert heartbeat.held[0].progress == '"half"'


async def test_progress_that_was_not_received_is_sent_again(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> None:
        job.set_progress("half")
        await asyncio.Event().wait()

    service.heartbeat_errors = [UNAVAILABLE]
    async with working(worker) as stream:
        stream.send(lease("t1"))
        first = await service.heartbeat_listing("t1")
        second = await service.heartbeat_listing("t1")

    assert first.held[0].progress == second.held[0].progress == '"half"'


async def test_progress_that_the_server_refuses_does_not_cost_the_leases(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> None:
        job.set_progress("odd")
        await asyncio.Event().wait()

    service.heartbeat_errors = [status(3, "INVALID_JSON")]
    async with working(worker) as stream:
        stream.send(lease("t1"))
        first = await service.heartbeat_listing("t1")
        second = await service.heartbeat_listing("t1")

    assert first.held[0].progress == '"odd"'
    assert not second.held[0].HasField("progress")


async def test_progress_over_16_kib_is_refused_where_it_is_set(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> str:
        with pytest.raises(InvalidRequest) as caught:
            job.set_progress("x" * 16_384)
        return str(caught.value)

    async with working(worker) as stream:
        stream.send(lease("t1"))
        settlement = await soon(service.settlements)

    assert "progress: is larger than 16384 bytes" in settlement.success.result


async def test_a_verdict_of_lost_stops_the_handler_and_settles_nothing(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    stopped = asyncio.Event()

    @worker.job("work")
    async def work(job: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    service.verdicts["t1"] = pb.LeaseVerdict.VERDICT_LOST
    async with working(worker) as stream:
        stream.send(lease("t1"))
        await happens(stopped)

    assert service.settle_calls.empty()


async def test_a_verdict_of_cancel_requested_stops_the_handler_and_settles_a_failure(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> None:
        await asyncio.Event().wait()

    service.verdicts["t1"] = pb.LeaseVerdict.VERDICT_CANCEL_REQUESTED
    async with working(worker) as stream:
        stream.send(lease("t1"))
        settlement = await soon(service.settlements)

    assert settlement.failure.message == "the job was cancelled"


async def test_a_verdict_of_lost_leaves_a_settlement_that_is_under_way_alone(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> None:
        pass

    service.settling_allowed.clear()
    service.verdicts["t1"] = pb.LeaseVerdict.VERDICT_LOST
    async with working(worker) as stream:
        stream.send(lease("t1"))
        await service.heartbeat_listing("t1")
        await service.heartbeat_listing("t1")
        service.settling_allowed.set()
        settlement = await soon(service.settlements)

    assert settlement.lease_token == "t1"


async def test_reconnect_opens_another_stream_of_the_same_session_over_a_new_connection(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def work(job: JobContext) -> None:
        await asyncio.Event().wait()

    worker.configure(address=service.tcp_address)
    service.says_reconnect = True
    async with working(worker) as stream:
        stream.send(lease("t1"))
        second = await soon(service.streams)
        service.says_reconnect = False
        await service.heartbeat_listing("t1")

    assert second.request == stream.request
    assert second.peer != stream.peer


async def test_an_empty_heartbeat_is_repeated_until_it_is_answered(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    worker.job("work")(lambda job: None)
    service.heartbeat_errors = [UNAVAILABLE] * 3

    async with working(worker) as stream:
        stream.end(UNAVAILABLE)
        await soon(service.streams)
        heartbeats = [await soon(service.heartbeats) for _ in range(6)]

    assert [each.sequence for each in heartbeats] == [1, 2, 3, 4, 5, 6]
