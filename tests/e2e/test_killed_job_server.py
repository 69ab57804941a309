"""A job_service that gets SIGKILL under load: nothing is lost, nothing runs twice."""

import os
import signal
import uuid
from pathlib import Path

from tests.support.dev_system import DevSystem
from tests.support.processes import until, until_gone
from tests.support.workload import (
    Producers,
    Workers,
    assert_each_ran_once,
    assert_each_succeeded_once,
    assert_sessions_went_on,
    history_of,
    until_succeeded,
)

from taskforge_core.embedded import EmbeddedPostgres

JOBS = 2_000


def test_a_killed_job_server_loses_no_job_and_makes_none_run_twice(
    open_folder: Path, tmp_path: Path
) -> None:
    queue = f"killed-server-{uuid.uuid4().hex}"
    # A server is back long before leases of 21 s end, and what it had claimed but not sent is
    # ready again after two heartbeats, which go out each 7 s.
    workers = Workers(tmp_path, queue, lease="21s")
    with DevSystem(open_folder / "data") as dev, dev.client() as client:
        queue_id = client.create_queue(queue).id
        job_address = dev.addresses["job"]
        with (
            workers.start(job_address, dev.key_file) as one,
            workers.start(job_address, dev.key_file) as two,
            Producers([dev.client] * 4, queue, each=JOBS // 4) as producers,
        ):
            producers.until_acknowledged(JOBS // 4)
            until(lambda: len(workers.starts()) > JOBS // 8, "jobs run")
            victim = dev.pid_of("job_service")
            os.kill(victim, signal.SIGKILL)
            until_gone([victim])
            assert len(producers.acknowledged) < JOBS
            producers.join()
            until_succeeded(client, queue, JOBS)
            pids = {one.process.pid, two.process.pid}
            assert (one.stop(), two.stop()) == (0, 0)
        rows = history_of(EmbeddedPostgres(dev.data_folder).dsn, queue_id)
    starts = workers.starts()
    assert_each_succeeded_once(rows, producers.acknowledged)
    assert_each_ran_once(starts, producers.acknowledged)
    assert_sessions_went_on(starts, pids)
