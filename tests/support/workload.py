"""Load for tests that break things: producers, workers that note each start, and what must hold."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
from tests.support.dev_system import Command
from tests.support.processes import PATIENCE, until
from tests.support.statements import fetch

from taskforge_core.statuses import JobStatus
from taskforge_sdk import BlockingClient, NewJob

# A line is written by one call to a file opened for appending: lines of two processes never mix.
_TASKS = """
import asyncio
import os
import time

from taskforge_sdk import JobContext, Worker

worker = Worker()
starts = os.open("starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@worker.job("work")
async def work(job: JobContext) -> int:
    words = (job.id, job.attempt, os.getpid(), worker.session_id, time.monotonic())
    os.write(starts, (" ".join(map(str, words)) + "\\n").encode())
    seconds = job.payload["seconds"]
    await asyncio.sleep(seconds if job.attempt > 1 else job.payload.get("first_seconds", seconds))
    return job.payload["n"]
"""
_SHORTEST, _LONGEST = 0.05, 0.25


@dataclass(frozen=True, slots=True)
class Start:
    """A handler began; `at` is the machine's monotonic clock, the same in all its processes."""

    job_id: str
    attempt: int
    pid: int
    session_id: str
    at: float


class Workers:
    """`taskforge worker run` processes that note each start of a handler."""

    def __init__(self, folder: Path, queue: str, *, lease: str, concurrency: int = 50) -> None:
        """Nothing is started yet. `folder` gets their module and their notes."""
        self._folder = folder
        self._arguments = (
            *("worker", "run", "tasks:worker", "--queue", queue),
            *("--lease-duration", lease, "--concurrency", str(concurrency)),
        )
        (folder / "tasks.py").write_text(_TASKS)
        (folder / "starts").touch()

    def start(self, job_address: str, key_file: Path) -> Command:
        """Start one; to be entered as a context manager."""
        variables = {
            "TASKFORGE_JOB_ADDRESS": job_address,
            "TASKFORGE_API_KEY_FILE": str(key_file),
        }
        return Command(*self._arguments, variables=variables, folder=self._folder)

    def starts(self) -> list[Start]:
        """All that was started so far."""
        lines = (self._folder / "starts").read_text().splitlines()
        return [
            Start(job, int(attempt), int(pid), session, float(at))
            for job, attempt, pid, session, at in map(str.split, lines)
        ]


def seconds_of(n: int) -> float:
    """How long the n-th job takes: between 50 and 250 ms."""
    return _SHORTEST + (_LONGEST - _SHORTEST) * (n % 17) / 16


class Producers:
    """Threads that create jobs, numbered from 0 on.

    Each has a client of its own, which repeats by itself what was not answered.
    """

    def __init__(
        self,
        clients: Sequence[Callable[[], BlockingClient]],
        queue: str,
        *,
        each: int,
        batches: Sequence[int] = (1, 10),
        seconds: Callable[[int], float] = seconds_of,
    ) -> None:
        """A thread for each client.

        Args:
            clients: Makes of the clients.
            queue: Where the jobs go.
            each: How many jobs each of them creates, a multiple of its batch.
            batches: How many jobs a call creates; the threads take these sizes in turn.
            seconds: How long the job of this number takes.
        """
        self.acknowledged: dict[int, str] = {}
        """The ids of the jobs whose creation was answered, by their numbers."""
        self._queue = queue
        self._batches = batches
        self._seconds = seconds
        self._errors: list[BaseException] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._produce, args=(place, make, each))
            for place, make in enumerate(clients)
        ]

    def join(self) -> None:
        """Return when all their jobs are created."""
        for thread in self._threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), f"{len(self.acknowledged)} jobs created: {self._errors}"
        assert not self._errors, self._errors

    def until_acknowledged(self, count: int) -> None:
        """Return when so many jobs are created."""

        def enough() -> bool:
            assert not self._errors, self._errors
            return len(self.acknowledged) >= count

        until(enough, f"{count} jobs are created")

    def _produce(self, place: int, make_client: Callable[[], BlockingClient], each: int) -> None:
        numbers = range(place * each, (place + 1) * each)
        size = self._batches[place % len(self._batches)]
        try:
            with make_client() as client:
                for first in range(numbers.start, numbers.stop, size):
                    if self._stopping.is_set():
                        return
                    self._create(client, range(first, first + size))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that joins
            self._errors.append(error)

    def _create(self, client: BlockingClient, numbers: range) -> None:
        payloads = [{"n": n, "seconds": self._seconds(n)} for n in numbers]
        if len(payloads) == 1:
            job = client.create_job(self._queue, "work", payloads[0])
            self.acknowledged[numbers[0]] = job.id
            return
        results = client.create_jobs(NewJob(self._queue, "work", payload) for payload in payloads)
        for n, created in zip(numbers, results, strict=True):
            if created.error is not None:
                raise created.error
            assert created.job_id is not None
            self.acknowledged[n] = created.job_id

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def until_succeeded(client: BlockingClient, queue: str, count: int) -> None:
    """Return when the queue counts so many successes."""
    try:
        until(
            lambda: client.queue_stats(queue).counts.succeeded >= count,
            f"{count} jobs of {queue} have succeeded",
            patience=2 * PATIENCE,
        )
    except AssertionError as error:
        error.add_note(str(client.queue_stats(queue)))
        raise


def history_of(dsn: str, queue_id: str) -> list[asyncpg.Record]:
    """All rows of the queue's jobs, wherever they are; a job that were in both would show twice."""
    return fetch(
        dsn,
        "SELECT id::text, status, attempt_count, attempts, result::text FROM every_job"
        " WHERE queue_id = $1 ORDER BY id",
        queue_id,
    )


def assert_each_succeeded_once(
    rows: Sequence[asyncpg.Record], acknowledged: dict[int, str]
) -> None:
    """Nothing acknowledged is lost, nothing is there twice, and each has its own result."""
    assert Counter(row["id"] for row in rows) == Counter(acknowledged.values())
    assert {row["status"] for row in rows} == {JobStatus.SUCCEEDED}
    results = {row["id"]: row["result"] for row in rows}
    assert results == {job_id: str(n) for n, job_id in acknowledged.items()}


def assert_no_attempt_ran_twice(starts: Sequence[Start]) -> None:
    """No handler was started twice for the same attempt of a job."""
    times = Counter((start.job_id, start.attempt) for start in starts)
    assert {attempt: n for attempt, n in times.items() if n > 1} == {}


def assert_each_ran_once(starts: Sequence[Start], acknowledged: dict[int, str]) -> None:
    """Each job took one attempt and one start of a handler."""
    assert Counter(start.job_id for start in starts) == Counter(acknowledged.values())
    assert {start.attempt for start in starts} == {1}


def assert_sessions_went_on(starts: Sequence[Start], pids: set[int]) -> None:
    """These processes, and no others, ran the jobs, each with one session all the time."""
    assert {start.pid for start in starts} == pids
    assert len({(start.pid, start.session_id) for start in starts}) == len(pids)
