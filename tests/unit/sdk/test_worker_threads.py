"""Handlers that block run in threads."""

import asyncio
import contextvars
import threading
from functools import partial

import pytest
from tests.unit.sdk.fake_job_service import (
    PATIENCE,
    FakeJobService,
    Working,
    lease,
    soon,
)

from taskforge_sdk import JobContext, Worker
from taskforge_sdk.registry import Registry
from taskforge_sdk.threads import ThreadPool


async def test_as_many_blocking_handlers_run_at_once_as_there_are_slots(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    together = threading.Barrier(4, timeout=PATIENCE)

    @worker.job("work")
    def work(job: JobContext) -> str:
        together.wait()
        return threading.current_thread().name

    async with working(worker) as stream:
        stream.send(*(lease(f"t{number}") for number in range(4)))
        settled = [await soon(service.settlements) for _ in range(4)]

    assert {each.success.result for each in settled} == {f'"taskforge-{n}"' for n in range(1, 5)}


async def test_a_cancelled_job_in_a_thread_sees_it_and_settles_a_failure(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    started, look = threading.Event(), threading.Event()

    @worker.job("work")
    def work(job: JobContext) -> None:
        assert not job.cancelled
        job.raise_if_cancelled()
        started.set()
        look.wait(PATIENCE)
        job.raise_if_cancelled()

    async with working(worker) as stream:
        stream.send(lease("t1"))
        await asyncio.to_thread(started.wait, PATIENCE)
        stream.send_cancel("t1")
        # The stream is read in order: when the second job is listed, the cancel has been read.
        stream.send(lease("t2"))
        await service.heartbeat_listing("t1", "t2")
        look.set()
        settled = [await soon(service.settlements) for _ in range(2)]

    messages = {each.lease_token: each.failure.message for each in settled}
    assert messages == {"t1": "the job was cancelled", "t2": ""}


async def test_a_lost_job_in_a_thread_settles_nothing_and_keeps_its_slot_until_it_ends(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    worker.configure(concurrency=1)
    started, go_on = threading.Event(), threading.Event()

    @worker.job("work")
    def work(job: JobContext) -> str:
        started.set()
        go_on.wait(PATIENCE)
        return job.id

    async with working(worker) as stream:
        stream.send(lease("t1"))
        await asyncio.to_thread(started.wait, PATIENCE)
        started.clear()
        stream.send_lost("t1")
        stream.send(lease("t2"))
        await service.heartbeat_listing("t2")
        assert not started.is_set()
        go_on.set()
        settlement = await soon(service.settlements)

    assert settlement.lease_token == "t2"
    assert service.settlements.empty()


async def test_progress_can_be_set_in_a_thread(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    go_on = threading.Event()

    @worker.job("work")
    def work(job: JobContext) -> None:
        job.set_progress(["some", "of", "it"])
        go_on.wait(PATIENCE)

    async with working(worker) as stream:
        stream.send(lease("t1"))
        heartbeat = await service.heartbeat_listing("t1")
        while not heartbeat.held[0].HasField("progress"):
            heartbeat = await service.heartbeat_listing("t1")
        go_on.set()

    assert heartbeat.held[0].progress == '["some","of","it"]'


async def test_an_exception_in_a_thread_is_a_failure(
    service: FakeJobService, working: Working, worker: Worker
) -> None:
    @worker.job("work")
    def work(job: JobContext) -> None:
        raise SystemExit("over")

    async with working(worker) as stream:
        stream.send(lease("t1"))
        settlement = await soon(service.settlements)

    assert settlement.failure.message == "SystemExit: over"


def test_an_idle_thread_is_used_before_another_is_started() -> None:
    pool = ThreadPool(8)
    names: list[str] = []
    done = threading.Semaphore(0)

    def work() -> None:
        names.append(threading.current_thread().name)

    for _ in range(20):
        pool.submit(work)
        pool._idle.acquire(timeout=PATIENCE)  # the thread is idle again …
        pool._idle.release()  # … and stays so
        done.release()
    pool.close()

    assert set(names) == {"taskforge-1"}


def test_work_in_a_thread_sees_the_context_variables_of_who_gave_it() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    pool = ThreadPool(1)
    seen: list[str] = []
    done = threading.Event()

    def work() -> None:
        seen.append(variable.get())
        done.set()

    variable.set("set")
    pool.submit(work)
    done.wait(PATIENCE)
    pool.close()

    assert seen == ["set"]


class Callable:
    async def __call__(self, job: JobContext) -> None: ...


async def coroutine_function(job: JobContext, extra: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (coroutine_function, True),
        (partial(coroutine_function, extra=1), True),
        (Callable(), True),
        (lambda job: None, False),
        (partial(print, "x"), False),
    ],
)
def test_whether_a_handler_blocks_is_seen_from_its_definition(
    function: object, is_async: bool
) -> None:
    registry = Registry()
    registry.register("work", function)  # type: ignore[type-var]
    registered = registry.find("work")
    assert registered is not None
    assert registered.is_async is is_async
