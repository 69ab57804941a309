"""How settlements are batched, repeated and given up."""

import logging

import pytest
from google.rpc import code_pb2
from tests.unit.sdk.fake_job_service import (
    LEASE_LOST,
    UNAVAILABLE,
    Answer,
    FakeJobService,
    Working,
    answer,
    lease,
    soon,
    status,
    succeed,
)

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import JobContext, Worker

INTERNAL = status(code_pb2.INTERNAL, "INTERNAL", "a fault")
REFUSED = status(code_pb2.INVALID_ARGUMENT, "INVALID_JSON", "too deep")


@pytest.fixture
def echo(worker: Worker) -> Worker:
    @worker.job("work")
    async def work(job: JobContext) -> object:
        return job.payload

    return worker


async def test_settlements_that_pile_up_ride_together_and_two_calls_at_most_are_in_flight(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    echo.configure(concurrency=100)
    service.settling_allowed.clear()
    async with working(echo) as stream:
        stream.send(lease("a"))
        assert len((await soon(service.settle_calls)).settlements) == 1
        stream.send(lease("b"))
        assert len((await soon(service.settle_calls)).settlements) == 1
        stream.send(*(lease(f"c{number}") for number in range(50)))
        await service.heartbeat_listing("a", "b", *(f"c{number}" for number in range(50)))
        assert service.settle_calls.empty()
        service.settling_allowed.set()
        third = await soon(service.settle_calls)

    assert len(third.settlements) == 50
    assert service.most_settles_in_flight == 2


async def test_a_call_takes_at_most_1000_settlements(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    echo.configure(concurrency=2_000)
    async with working(echo) as stream:
        stream.send(*(lease(str(number)) for number in range(1_500)))
        sizes = [len((await soon(service.settle_calls)).settlements) for _ in range(2)]

    assert sizes == [1_000, 500]


async def test_large_results_are_spread_over_calls_that_a_server_takes(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    echo.configure(concurrency=10)
    async with working(echo) as stream:
        stream.send(*(lease(str(number), "x" * 1_000_000) for number in range(4)))
        sizes = [(await soon(service.settle_calls)).ByteSize() for _ in range(2)]

    assert all(size < 4 * 1024 * 1024 for size in sizes)


async def test_a_settlement_without_an_answer_is_repeated_with_the_same_token(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    service.on_settle = [
        lambda _: UNAVAILABLE,
        lambda _: status(code_pb2.DEADLINE_EXCEEDED, ""),
        lambda request: answer(*[UNAVAILABLE] * len(request.settlements)),
    ]
    async with working(echo) as stream:
        stream.send(lease("t1", "result"))
        settlement = await soon(service.settlements)
        calls = [await soon(service.settle_calls) for _ in range(4)]

    assert settlement.success.result == '"result"'
    assert all(call == calls[0] for call in calls)


async def test_only_what_was_not_answered_is_repeated(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    service.on_settle = [lambda _: answer(None, UNAVAILABLE, None)]
    async with working(echo) as stream:
        stream.send(lease("t1"), lease("t2"), lease("t3"))
        settled = [(await soon(service.settlements)).lease_token for _ in range(3)]

    assert settled == ["t1", "t3", "t2"]


async def test_a_lost_lease_is_forgotten_and_logged(
    service: FakeJobService, working: Working, echo: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    service.on_settle = [lambda _: answer(LEASE_LOST)]
    with caplog.at_level(logging.WARNING, "taskforge.worker"):
        async with working(echo) as stream:
            stream.send(lease("t1"))
            await soon(service.settle_calls)
            stream.send(lease("t2"))
            assert (await soon(service.settlements)).lease_token == "t2"

    assert "the lease of job job-of-t1 was lost before its settlement" in caplog.text


async def test_a_refused_result_becomes_a_failure_that_says_why(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    service.on_settle = [lambda _: answer(None, REFUSED)]
    async with working(echo) as stream:
        stream.send(lease("t1"), lease("t2"))
        await soon(service.settlements)
        second = await soon(service.settlements)

    assert second.lease_token == "t2"
    assert second.failure.message == "the settlement was refused: too deep"


async def test_one_settlement_that_fails_the_whole_call_does_not_fail_its_neighbours(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    def refuse_t2(request: pb.BatchSettleJobsRequest) -> Answer:
        refused = any(
            each.lease_token == "t2" and each.HasField("success") for each in request.settlements
        )
        return REFUSED if refused else succeed(request)

    service.on_settle = [refuse_t2] * 10
    async with working(echo) as stream:
        stream.send(*(lease(f"t{number}") for number in range(4)))
        settled = {
            settlement.lease_token: settlement.WhichOneof("outcome")
            for settlement in [await soon(service.settlements) for _ in range(4)]
        }

    assert settled == {"t0": "success", "t1": "success", "t2": "failure", "t3": "success"}


async def test_one_settlement_that_breaks_the_server_costs_only_itself(
    service: FakeJobService, working: Working, echo: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def break_on_t2(request: pb.BatchSettleJobsRequest) -> Answer:
        broken = any(each.lease_token == "t2" for each in request.settlements)
        return INTERNAL if broken else succeed(request)

    service.on_settle = [break_on_t2] * 10
    with caplog.at_level(logging.ERROR, "taskforge.worker"):
        async with working(echo) as stream:
            stream.send(*(lease(f"t{number}") for number in range(4)))
            settled = {(await soon(service.settlements)).lease_token for _ in range(3)}

    assert settled == {"t0", "t1", "t3"}
    assert "job job-of-t2 cannot be settled" in caplog.text


async def test_a_fault_of_the_server_is_not_repeated_for_ever(
    service: FakeJobService, working: Working, echo: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    service.on_settle = [lambda _: INTERNAL] * 6
    with caplog.at_level(logging.ERROR, "taskforge.worker"):
        async with working(echo) as stream:
            stream.send(lease("t1"))
            for _ in range(6):
                await soon(service.settle_calls)
            stream.send(lease("t2"))
            assert (await soon(service.settlements)).lease_token == "t2"

    assert "job job-of-t1 cannot be settled" in caplog.text


async def test_an_answer_for_another_number_of_settlements_is_asked_for_again(
    service: FakeJobService, working: Working, echo: Worker
) -> None:
    service.on_settle = [lambda _: answer()]
    async with working(echo) as stream:
        stream.send(lease("t1"))
        assert (await soon(service.settlements)).lease_token == "t1"
