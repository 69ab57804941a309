"""How each end of a handler is settled."""

import asyncio
import json
from datetime import timedelta

import pytest
from tests.unit.sdk.fake_job_service import FakeJobService, Working, lease, soon

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import Fatal, JobContext, Retry, Snooze, Worker


async def outcome_of(
    service: FakeJobService, working: Working, worker: Worker, payload: object = None
) -> pb.Settlement:
    async with working(worker) as stream:
        stream.send(lease("t1", payload))
        settlement = await soon(service.settlements)
    assert settlement.lease_token == "t1"
    return settlement


async def test_a_returned_value_is_the_result_of_a_success(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def double(job: JobContext) -> dict[str, int]:
        return {"doubled": 2 * job.payload["number"]}

    settlement = await outcome_of(service, working, worker, {"number": 21})

    assert settlement.success.result == '{"doubled":42}'


async def test_none_is_a_success_without_a_result(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def nothing(job: JobContext) -> None:
        pass

    settlement = await outcome_of(service, working, worker)

    assert settlement.HasField("success")
    assert settlement.success.result == ""


async def test_an_exception_is_a_failure_with_its_type_text_and_traceback(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def fail(job: JobContext) -> None:
        raise KeyError("no such address")

    failure = (await outcome_of(service, working, worker)).failure

    assert failure.message == "KeyError: 'no such address'"
    assert not failure.HasField("retryable")
    assert not failure.HasField("retry_after")
    detail = json.loads(failure.detail)
    assert detail["type"] == "builtins.KeyError"
    assert "in fail" in detail["traceback"]


async def test_an_endless_exception_is_cut_to_what_the_contract_takes(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def fail(job: JobContext) -> None:
        raise ValueError("ä\0\ud800\x01" * 10_000)

    failure = (await outcome_of(service, working, worker)).failure

    assert len(failure.message) == 1_000
    assert "\0" not in failure.message
    assert len(failure.detail.encode()) <= 8_192
    assert json.loads(failure.detail)["type"] == "builtins.ValueError"


async def test_an_exception_that_cannot_be_told_is_still_a_failure(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    class Untold(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    @worker.job("work")
    async def fail(job: JobContext) -> None:
        raise Untold

    failure = (await outcome_of(service, working, worker)).failure

    assert failure.message == "Untold: it has no text"


async def test_retry_is_a_failure_that_says_when_to_try_again(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def later(job: JobContext) -> None:
        raise Retry(after=timedelta(seconds=90), message="the mail server is busy")

    failure = (await outcome_of(service, working, worker)).failure

    assert failure.message == "the mail server is busy"
    assert failure.retry_after.ToTimedelta() == timedelta(seconds=90)
    assert not failure.HasField("retryable")


async def test_retry_without_a_time_leaves_it_to_the_queue(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def later(job: JobContext) -> None:
        raise Retry

    failure = (await outcome_of(service, working, worker)).failure

    assert not failure.HasField("retry_after")


async def test_fatal_is_a_failure_that_is_not_tried_again(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def give_up(job: JobContext) -> None:
        raise Fatal("there is no such customer")

    failure = (await outcome_of(service, working, worker)).failure

    assert failure.message == "there is no such customer"
    assert failure.HasField("retryable")
    assert not failure.retryable


async def test_snooze_puts_the_job_off(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def not_yet(job: JobContext) -> None:
        raise Snooze(30)

    settlement = await outcome_of(service, working, worker)

    assert settlement.snooze.delay.ToTimedelta() == timedelta(seconds=30)


async def test_a_result_that_is_no_json_is_a_failure_that_says_so(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def odd(job: JobContext) -> object:
        return {"when": asyncio.Event()}

    failure = (await outcome_of(service, working, worker)).failure

    assert failure.message.startswith(
        "UnsendableResult: the handler's result cannot be JSON: Object of type Event"
    )


async def test_a_result_over_a_mebibyte_is_a_failure_that_says_so(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def much(job: JobContext) -> str:
        return "x" * 1_048_576

    failure = (await outcome_of(service, working, worker)).failure

    assert failure.message == (
        "UnsendableResult: the handler's result has 1,048,578 bytes, "
        "more than the 1,048,576 allowed"
    )


async def test_a_handler_that_exits_fails_its_job_and_not_the_worker(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def leave(job: JobContext) -> None:
        raise SystemExit(3)

    failure = (await outcome_of(service, working, worker)).failure

    assert failure.message == "SystemExit: 3"


async def test_each_type_goes_to_its_handler_and_only_those_types_are_asked_for(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("a")
    async def run_a(job: JobContext) -> str:
        return "ran a"

    @worker.job("b")
    def run_b(job: JobContext) -> str:
        return "ran b"

    async with working(worker) as stream:
        assert list(stream.request.job_types) == ["a", "b"]
        stream.send(lease("t1", job_type="a"), lease("t2", job_type="b"))
        settled = [await soon(service.settlements), await soon(service.settlements)]

    assert {each.lease_token: each.success.result for each in settled} == {
        "t1": '"ran a"',
        "t2": '"ran b"',
    }


async def test_a_handler_learns_about_its_job(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    async def tell(job: JobContext) -> list[object]:
        return [job.id, job.job_type, job.attempt, job.max_attempts, job.deadline, job.cancelled]

    async with working(worker) as stream:
        stream.send(lease("t1", attempt=2))
        settlement = await soon(service.settlements)

    assert json.loads(settlement.success.result) == ["job-of-t1", "work", 2, 3, None, False]


@pytest.mark.parametrize("delay", [-1, timedelta(days=8)])
def test_a_delay_outside_the_contract_is_refused_where_it_is_written(
    delay: float | timedelta,
) -> None:
    with pytest.raises(ValueError, match="a delay is 0 to 7 days"):
        Snooze(delay)
    with pytest.raises(ValueError, match="a delay is 0 to 7 days"):
        Retry(after=delay)
