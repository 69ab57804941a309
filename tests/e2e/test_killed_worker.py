"""A worker that gets SIGKILL with jobs in its hands: they run elsewhere, soon."""

import os
import signal
import uuid
from datetime import UTC, datetime
from pathlib import Path

from tests.support.dev_system import DevSystem
from tests.support.processes import until
from tests.support.workload import Workers, assert_no_attempt_ran_twice, until_succeeded

from taskforge_sdk import AttemptOutcome, JobStatus, NewJob

LEASE_SECONDS = 2.0
READY_AGAIN_SECONDS = LEASE_SECONDS + 2.0
SLACK_SECONDS = 2.0
HELD = 20
OTHERS = 200


def test_jobs_of_a_killed_worker_run_elsewhere_soon_after_its_lease(
    dev: DevSystem, tmp_path: Path
) -> None:
    queue = f"killed-worker-{uuid.uuid4().hex}"
    workers = Workers(tmp_path, queue, lease=f"{LEASE_SECONDS}s", concurrency=HELD)
    job_address = dev.addresses["job"]
    with dev.client() as client, workers.start(job_address, dev.key_file) as victim:
        client.create_queue(queue)
        # The first attempt of these takes for ever, so that they are in the victim's hands.
        slow = {"seconds": 0, "first_seconds": 3600}
        held = client.create_jobs(NewJob(queue, "work", {"n": n, **slow}) for n in range(HELD))
        until(lambda: len(workers.starts()) == HELD, "the victim has all it can hold")
        with workers.start(job_address, dev.key_file) as survivor:
            quick = {"seconds": 0.01}
            client.create_jobs(NewJob(queue, "work", {"n": n, **quick}) for n in range(OTHERS))
            until(lambda: len(workers.starts()) > HELD, "the survivor is at work")
            killed = datetime.now(UTC)
            os.kill(victim.process.pid, signal.SIGKILL)
            until_succeeded(client, queue, HELD + OTHERS)
            assert survivor.stop() == 0
        rescued = [client.get_job(job.job_id) for job in held if job.job_id is not None]
        listed = list(client.list_jobs(queue=queue, page_size=1000))
    assert len(rescued) == HELD
    for job in rescued:
        assert (job.status, job.attempt_count) == (JobStatus.SUCCEEDED, 2)
        [lost] = job.attempts
        assert (lost.number, lost.outcome) == (1, AttemptOutcome.LEASE_EXPIRED)
        assert lost.worker_id != job.worker_id
        # Postgres runs on this machine: its clock is ours.
        assert lost.ended_at is not None
        assert job.started_at is not None
        assert (lost.ended_at - killed).total_seconds() < READY_AGAIN_SECONDS + SLACK_SECONDS
        assert (job.started_at - killed).total_seconds() < READY_AGAIN_SECONDS + SLACK_SECONDS
    assert {job.status for job in listed} == {JobStatus.SUCCEEDED}
    assert len({job.id for job in listed}) == len(listed) == HELD + OTHERS
    starts = workers.starts()
    assert_no_attempt_ran_twice(starts)
    assert len(starts) == 2 * HELD + OTHERS
    second = {start.job_id for start in starts if start.attempt == 2}
    assert second == {job.job_id for job in held}
    assert {start.pid for start in starts if start.attempt == 2} == {survivor.process.pid}
