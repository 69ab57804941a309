"""Two worker processes on one queue: each job runs once, and both take their share."""

import uuid
from collections import Counter
from pathlib import Path

from tests.support.dev_system import Command, DevSystem
from tests.support.processes import until

from taskforge_sdk import JobStatus, NewJob

JOBS = 5_000

# A line is written by one call to a file opened for appending: lines of two processes never mix.
TASKS = """
import os

from taskforge_sdk import JobContext, Worker

worker = Worker(concurrency=100)
runs = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@worker.job("note")
async def note(job: JobContext) -> None:
    os.write(runs, f"{job.id} {os.getpid()}\\n".encode())
"""


def test_two_workers_with_5000_jobs_never_run_one_twice(dev: DevSystem, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    queue = f"once-{uuid.uuid4().hex}"
    run = ("worker", "run", "tasks:worker", "--queue", queue)
    with dev.client() as client:
        client.create_queue(queue)
        with (
            Command(*run, variables=dev.variables, folder=tmp_path) as one,
            Command(*run, variables=dev.variables, folder=tmp_path) as two,
        ):
            for worker in (one, two):
                worker.until_says("takes note")
            created = client.create_jobs(NewJob(queue, "note", {"n": n}) for n in range(JOBS))
            until(
                lambda: client.queue_stats(queue).counts.succeeded == JOBS,
                "all jobs have succeeded",
                patience=80,
            )
            assert (one.stop(), two.stop()) == (0, 0)
        listed = list(client.list_jobs(queue=queue, page_size=1000))
    runs = [line.split() for line in (tmp_path / "runs").read_text().splitlines()]
    times = Counter(job_id for job_id, _ in runs)
    assert set(times) == {job.job_id for job in created}
    assert set(times.values()) == {1}
    assert {pid for _, pid in runs} == {str(one.process.pid), str(two.process.pid)}
    assert {job.id for job in listed} == set(times)
    assert {(job.status, job.attempt_count) for job in listed} == {(JobStatus.SUCCEEDED, 1)}
