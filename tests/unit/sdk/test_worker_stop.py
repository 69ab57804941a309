"""How a worker leaves: finishing what runs, giving back the rest, settling all of it."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator

import pytest
from tests.unit.sdk.fake_job_service import (
    PATIENCE,
    UNAVAILABLE,
    FakeJobService,
    FakeStream,
    happens,
    lease,
    soon,
)

from taskforge_sdk import JobContext, Worker, session


class Handling:
    """A handler that goes on until it is let go or cancelled."""

    def __init__(self, worker: Worker) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()
        worker.job("work")(self.handle)

    async def handle(self, job: JobContext) -> None:
        self.started.put_nowait(job.id)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.put_nowait(job.id)
            raise


@pytest.fixture
def handling(worker: Worker) -> Handling:
    return Handling(worker)


@pytest.fixture
async def running(
    service: FakeJobService, worker: Worker, handling: Handling
) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(worker.run())
    yield task
    service.settling_allowed.set()
    worker.stop()
    worker.stop()
    await asyncio.wait([task], timeout=PATIENCE)


async def ends(running: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(PATIENCE):
        await running


async def outcomes(service: FakeJobService, count: int) -> dict[str, str | None]:
    settled = [await soon(service.settlements) for _ in range(count)]
    return {each.lease_token: each.WhichOneof("outcome") for each in settled}


async def started(service: FakeJobService, handling: Handling, *tokens: str) -> FakeStream:
    stream = await soon(service.streams)
    stream.send(*(lease(token) for token in tokens))
    for _ in tokens:
        await soon(handling.started)
    return stream


async def test_a_stopped_worker_closes_its_stream_and_finishes_what_runs(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    stream = await started(service, handling, "t1", "t2")
    worker.stop()
    await happens(stream.closed)
    await service.heartbeat_listing("t1", "t2")
    await service.heartbeat_listing("t1", "t2")
    handling.go_on.set()
    await ends(running)

    assert await outcomes(service, 2) == {"t1": "success", "t2": "success"}
    assert service.streams.empty()


async def test_what_still_runs_after_the_grace_is_cancelled_and_given_back(
    service: FakeJobService, address: str, worker: Worker
) -> None:
    worker.configure(grace=0.05)
    handling = Handling(worker)
    running = asyncio.create_task(worker.run())
    await started(service, handling, "t1", "t2")
    worker.stop()
    await ends(running)

    assert await outcomes(service, 2) == {"t1": "release", "t2": "release"}
    assert {await soon(handling.cancelled) for _ in range(2)} == {"job-of-t1", "job-of-t2"}


async def test_a_second_stop_does_not_wait_for_the_grace(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    stream = await started(service, handling, "t1")
    worker.stop()
    await happens(stream.closed)
    assert service.settlements.empty()
    worker.stop()
    await ends(running)

    assert await outcomes(service, 1) == {"t1": "release"}


async def test_what_has_not_started_is_given_back_at_once(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    stream = await started(service, handling, "t1", "t2", "t3", "t4")  # all the slots
    stream.send(lease("t5"), lease("t6"))
    await service.heartbeat_listing("t1", "t2", "t3", "t4", "t5", "t6")
    worker.stop()

    assert await outcomes(service, 2) == {"t5": "release", "t6": "release"}
    handling.go_on.set()
    await ends(running)
    assert set((await outcomes(service, 4)).values()) == {"success"}


async def test_what_was_on_its_way_when_the_worker_stopped_is_given_back(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    handling.go_on.set()
    stream = await started(service, handling, "t1")
    assert await outcomes(service, 1) == {"t1": "success"}
    await soon(service.settle_calls)
    service.settling_allowed.clear()  # a refill is on its way now, and nothing may be settled
    stream.send(lease("t2"))
    await soon(service.settle_calls)
    worker.stop()
    stream.send(lease("t3"))
    await happens(stream.closed)
    service.settling_allowed.set()
    await ends(running)

    assert await outcomes(service, 2) == {"t2": "success", "t3": "release"}
    assert handling.started.qsize() == 1  # t2


async def test_a_cancelled_run_gives_everything_back(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    await started(service, handling, "t1")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ends(running)

    assert await outcomes(service, 1) == {"t1": "release"}


async def test_a_timed_out_job_is_not_given_back(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    stream = await soon(service.streams)
    stream.send(lease("t1", timeout=0.01), lease("t2"))
    assert await soon(handling.cancelled) == "job-of-t1"
    worker.stop()
    worker.stop()
    await ends(running)

    assert await outcomes(service, 1) == {"t2": "release"}
    assert service.settlements.empty()


async def test_settlements_without_an_answer_are_repeated_while_leaving(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    await started(service, handling, "t1")
    service.on_settle = [lambda _: UNAVAILABLE] * 2
    worker.stop()
    handling.go_on.set()
    await ends(running)

    assert await outcomes(service, 1) == {"t1": "success"}


async def test_a_server_that_never_answers_does_not_keep_a_worker_from_leaving(
    service: FakeJobService,
    worker: Worker,
    handling: Handling,
    running: "asyncio.Task[None]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "_LAST_SETTLEMENTS", 0.05)
    await started(service, handling, "t1")
    service.settling_allowed.clear()
    worker.stop()
    handling.go_on.set()
    await ends(running)

    assert service.settlements.empty()


async def test_a_handler_that_never_stops_does_not_keep_a_worker_from_leaving(
    service: FakeJobService, address: str, worker: Worker
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    @worker.job("work")
    def stuck(job: JobContext) -> None:
        entered.set()
        go_on.wait()

    running = asyncio.create_task(worker.run())
    stream = await soon(service.streams)
    stream.send(lease("t1"))
    await asyncio.to_thread(entered.wait, PATIENCE)
    worker.stop()
    worker.stop()
    await ends(running)
    stuck_threads = [each for each in threading.enumerate() if each.name.startswith("taskforge-")]
    go_on.set()

    assert await outcomes(service, 1) == {"t1": "release"}
    assert stuck_threads
    assert all(each.daemon for each in stuck_threads)  # they do not keep the process alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_worker_when_asked_to(
    service: FakeJobService, worker: Worker, handling: Handling, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    running = asyncio.create_task(worker.run(install_signal_handlers=True))
    stream = await started(service, handling, "t1")
    signal.raise_signal(number)
    await happens(stream.closed)
    handling.go_on.set()
    await ends(running)

    assert await outcomes(service, 1) == {"t1": "success"}
    assert signal.getsignal(number) == before


async def test_a_worker_can_run_again_with_a_session_of_its_own(
    service: FakeJobService, worker: Worker, handling: Handling
) -> None:
    sessions = []
    for _ in range(2):
        running = asyncio.create_task(worker.run())
        sessions.append((await soon(service.streams)).request.session_id)
        worker.stop()
        await ends(running)

    assert len(set(sessions)) == 2


async def test_a_worker_runs_once_at_a_time(
    service: FakeJobService, worker: Worker, handling: Handling, running: "asyncio.Task[None]"
) -> None:
    await soon(service.streams)
    with pytest.raises(RuntimeError, match="runs already"):
        await worker.run()


def test_stopping_a_worker_that_does_not_run_does_nothing(worker: Worker) -> None:
    worker.stop()
    assert worker.session_id == ""
