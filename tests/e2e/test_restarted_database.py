"""Postgres crashes under load and comes back: the services, workers and producers go on alone."""

import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from tests.support.deployment import Deployment
from tests.support.processes import until
from tests.support.workload import (
    Producers,
    Workers,
    assert_each_succeeded_once,
    assert_no_attempt_ran_twice,
    assert_sessions_went_on,
    history_of,
    until_succeeded,
)

from taskforge_sdk import JobStatus

JOBS = 1_600
SERVING_AGAIN_SECONDS = 10.0


def test_a_database_that_crashes_and_comes_back_loses_nothing_and_needs_no_hand(
    open_folder: Path, tmp_path: Path
) -> None:
    queue = f"crashed-{uuid.uuid4().hex}"
    workers = Workers(tmp_path, queue, lease="15s")
    with Deployment(open_folder, tmp_path) as deployment:
        queues, jobs, _ = deployment.add("queue_service", "job_service", "scheduler_service")
        pids = {name: replica.pid for name, replica in deployment.replicas.items()}
        make_client = partial(deployment.client, queues, jobs)
        with (
            make_client() as client,
            workers.start(jobs.address, deployment.key_file) as one,
            workers.start(jobs.address, deployment.key_file) as two,
        ):
            queue_id = client.create_queue(queue).id
            with Producers([make_client] * 4, queue, each=JOBS // 4) as producers:
                producers.until_acknowledged(JOBS // 4)
                until(lambda: len(workers.starts()) > JOBS // 8, "jobs run")
                deployment.crash_postgres()
                # Long enough for all of them to notice, and to have failed more than once.
                until(lambda: not jobs.is_serving() and not queues.is_serving(), "they notice")
                assert len(producers.acknowledged) < JOBS
                deployment.postgres.start()
                up = time.monotonic()
                # One that overtakes the others, and one that needs the scheduler too.
                soon = datetime.now(UTC) + timedelta(milliseconds=100)
                probes = {
                    n: client.create_job(
                        queue, "work", {"n": n, "seconds": 0}, priority=9, scheduled_for=when
                    ).id
                    for n, when in ((-1, None), (-2, soon))
                }
                for probe in probes.values():
                    until(
                        lambda probe=probe: client.get_job(probe).status is JobStatus.SUCCEEDED,  # type: ignore[misc]
                        "a job is created, leased and settled",
                    )
                assert time.monotonic() - up < SERVING_AGAIN_SECONDS
                producers.join()
            until_succeeded(client, queue, JOBS + len(probes))
            worker_pids = {one.process.pid, two.process.pid}
            assert (one.stop(), two.stop()) == (0, 0)
        assert all(replica.is_running for replica in deployment.replicas.values())
        assert {name: replica.pid for name, replica in deployment.replicas.items()} == pids
        rows = history_of(deployment.postgres.dsn, queue_id)
    starts = workers.starts()
    assert_each_succeeded_once(rows, producers.acknowledged | probes)
    assert_no_attempt_ran_twice(starts)
    assert_sessions_went_on(starts, worker_pids)
