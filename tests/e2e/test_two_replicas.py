"""Two replicas of a service on one database: they share the work, and one can go."""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from tests.support.deployment import Deployment, Replica
from tests.support.processes import until
from tests.support.workload import (
    Producers,
    Workers,
    assert_each_ran_once,
    assert_each_succeeded_once,
    assert_sessions_went_on,
    history_of,
    until_succeeded,
)

from taskforge_sdk import BlockingClient, JobStatus

TAKE_OVER_SECONDS = 10.0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A queue_service, two job_services and two schedulers, one of which leads."""
    folder = Path(tempfile.mkdtemp(prefix="taskforge-test-"))
    folder.chmod(0o755)
    try:
        with Deployment(folder, tmp_path_factory.mktemp("logs")) as deployment:
            deployment.add(
                *("queue_service", "job_service", "job_service"),
                *("scheduler_service", "scheduler_service"),
            )
            yield deployment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def replicas(deployment: Deployment) -> tuple[Replica, Replica]:
    """The two job_services."""
    one, two = deployment.of("job_service")
    return one, two


def _makers(deployment: Deployment) -> list[Callable[[], BlockingClient]]:
    """For each job_service what makes a client of it."""
    [queues] = deployment.of("queue_service")
    return [partial(deployment.client, queues, jobs) for jobs in deployment.of("job_service")]


def test_workers_of_two_replicas_never_run_one_of_5000_jobs_twice(
    deployment: Deployment, replicas: tuple[Replica, Replica], tmp_path: Path
) -> None:
    queue, count = f"shared-{uuid.uuid4().hex}", 5_000
    workers = Workers(tmp_path, queue, lease="30s", concurrency=100)
    with _makers(deployment)[0]() as client:
        queue_id = client.create_queue(queue).id
        with (
            workers.start(replicas[0].address, deployment.key_file) as one,
            workers.start(replicas[1].address, deployment.key_file) as two,
        ):
            for worker in (one, two):
                worker.until_says("takes work")
            producers = Producers(
                _makers(deployment), queue, each=count // 2, batches=(100,), seconds=lambda _: 0
            )
            with producers:
                producers.join()
            until_succeeded(client, queue, count)
            pids = {one.process.pid, two.process.pid}
            assert (one.stop(), two.stop()) == (0, 0)
    rows = history_of(deployment.postgres.dsn, queue_id)
    starts = workers.starts()
    assert_each_succeeded_once(rows, producers.acknowledged)
    assert_each_ran_once(starts, producers.acknowledged)
    assert_sessions_went_on(starts, pids)


@pytest.mark.parametrize("gone", ["killed", "told to leave"])
def test_clients_go_on_through_the_other_replica_when_theirs_is_gone(
    gone: str, deployment: Deployment, replicas: tuple[Replica, Replica], tmp_path: Path
) -> None:
    queue, count = f"failing-over-{uuid.uuid4().hex}", 1_200
    # What a killed replica had claimed but not sent is ready again after two heartbeats of 3 s.
    workers = Workers(tmp_path, queue, lease="9s")
    [queues] = deployment.of("queue_service")
    # gRPC stays with the first address that takes the connection.
    both = f"ipv4:{replicas[0].address},{replicas[1].address}"
    make_client = partial(deployment.client_at, queues.address, both)
    with make_client() as client:
        queue_id = client.create_queue(queue).id
        with (
            workers.start(both, deployment.key_file) as worker,
            Producers([make_client] * 4, queue, each=count // 4) as producers,
        ):
            until(lambda: len(workers.starts()) > count // 10, "jobs run")
            replicas[0].kill() if gone == "killed" else replicas[0].stop()
            try:
                producers.join()
                until_succeeded(client, queue, count)
                pid = worker.process.pid
                assert worker.stop() == 0
            finally:
                replicas[0].start_again()
                deployment.until_serving(replicas[:1])
    rows = history_of(deployment.postgres.dsn, queue_id)
    starts = workers.starts()
    assert_each_succeeded_once(rows, producers.acknowledged)
    assert_each_ran_once(starts, producers.acknowledged)
    assert_sessions_went_on(starts, {pid})


def test_another_scheduler_takes_over_from_a_killed_leader(deployment: Deployment) -> None:
    queue = f"due-{uuid.uuid4().hex}"
    with _makers(deployment)[0]() as client:
        client.create_queue(queue)
        schedulers = deployment.of("scheduler_service")
        until(lambda: any(scheduler.is_leading() for scheduler in schedulers), "one leads")
        [leader] = [scheduler for scheduler in schedulers if scheduler.is_leading()]
        [other] = [scheduler for scheduler in schedulers if scheduler is not leader]
        leader.kill()
        killed = datetime.now(UTC)
        # Not due yet when the leader dies.
        due = client.create_job(queue, "work", scheduled_for=killed + timedelta(seconds=0.5))
        assert due.status is JobStatus.SCHEDULED
        until(lambda: client.get_job(due.id).status is JobStatus.PENDING, "the job is promoted")
        promoted = (datetime.now(UTC) - killed).total_seconds()
        assert promoted < TAKE_OVER_SECONDS
        assert other.is_leading()
