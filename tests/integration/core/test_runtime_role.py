"""A deployment by two roles: an owner that migrates, no superuser, and one that serves."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Literal

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.support import job_calls as jobs
from tests.support import queue_calls as queues
from tests.support.history_days import DEFAULT_TABLE, OLD, finished_jobs, where
from tests.support.job_replicas import JobReplica, job_replica
from tests.support.lease_streams import lease_stream
from tests.support.leases import insert_server, insert_session, lease, miscounts, statuses
from tests.support.rows import insert_jobs, insert_queue
from tests.support.runtime_roles import as_role, role
from tests.support.servers import serving
from tests.support.stubs import QueueStub
from tests.support.tenants import bearer, insert_tenant
from tests.support.waiting import eventually

from queue_service.__main__ import compose as compose_queue_service
from scheduler_service import queries
from scheduler_service.__main__ import compose as compose_scheduler
from scheduler_service.leading import Leader
from scheduler_service.queries import partition_name
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1 import queue_service_pb2 as queue_pb
from taskforge.v1.queue_service_pb2_grpc import QueueServiceStub
from taskforge_core.authentication import CredentialAuthenticator
from taskforge_core.bootstrapping import bootstrap
from taskforge_core.database import Database
from taskforge_core.granting import grant_runtime
from taskforge_core.ids import DEFAULT_PROJECT_ID
from taskforge_core.migrating import migrate
from taskforge_core.notifications import Notifier
from taskforge_core.projects import Projects
from taskforge_core.settings import Settings
from taskforge_core.statuses import JobStatus

DAY = timedelta(days=1)
LONG_AGO = datetime.now(UTC) - 2 * DAY


@dataclass(frozen=True)
class Deployment:
    """A database that an owner migrated."""

    owner_name: str
    owner: Database
    runtime: Database


@pytest.fixture
async def deployment(empty_database_url: str) -> AsyncIterator[Deployment]:
    """The owner may make a schema in the database, the runtime role may connect; nothing else."""
    async with role(empty_database_url) as owner_name, role(empty_database_url) as runtime_name:
        administrator = await asyncpg.connect(empty_database_url)
        name = await administrator.fetchval("SELECT current_database()")
        await administrator.execute(
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;"
            f" GRANT CONNECT, CREATE ON DATABASE {name} TO {owner_name};"
            f" GRANT CONNECT ON DATABASE {name} TO {runtime_name}"
        )
        await administrator.close()
        await migrate(as_role(empty_database_url, owner_name))
        await grant_runtime(as_role(empty_database_url, owner_name), runtime_name)
        owner, runtime = [
            await Database.open(
                Settings(
                    database_url=as_role(empty_database_url, each),
                    listen_url=None,
                    authentication="off",
                )
            )
            for each in (owner_name, runtime_name)
        ]
        yield Deployment(owner_name, owner, runtime)
        await runtime.close()
        await owner.close()


@pytest.fixture
async def queue_stub(deployment: Deployment, open_folder: Path) -> AsyncIterator[QueueStub]:
    """QueueService as the runtime role."""
    database = deployment.runtime
    notifier = Notifier(database.hot, origin="queue_service")
    service = compose_queue_service(database, Projects(database), notifier)
    async with serving(database, service, open_folder, "queue") as channel:
        yield QueueServiceStub(channel)
    await notifier.flushed()


@pytest.fixture
async def replica(deployment: Deployment, open_folder: Path) -> AsyncIterator[JobReplica]:
    """JobService as the runtime role."""
    async with job_replica(deployment.runtime.settings, open_folder, "job") as replica:
        yield replica


async def schedule(database: Database) -> None:
    """Run every pass of the scheduler once, as the leader."""
    notifier = Notifier(database.hot, origin="scheduler_service")
    leader = Leader(database.settings)
    await leader.run_once()
    assert leader.is_leading
    for loop in compose_scheduler(database, notifier, leader):
        await loop.run_once()
    await notifier.flushed()
    await leader.resign()


async def test_jobs_are_created_leased_and_settled(
    deployment: Deployment, queue_stub: QueueStub, replica: JobReplica
) -> None:
    await queues.make(queue_stub, "dead")
    await queues.make(
        queue_stub, "emails", max_retries=0, max_concurrent_jobs=50, rate_limit_per_minute=1000
    )
    stub = replica.stub
    later = Timestamp()
    later.FromDatetime(datetime.now(UTC) + DAY)
    await jobs.create(stub, scheduled_for=later)
    ids = await jobs.create_all(stub, [jobs.spec() for _ in range(5)], request_id="once")
    assert await jobs.create_all(stub, [jobs.spec() for _ in range(5)], request_id="once") == ids
    session_id = "0d9ab0e3-9a3d-4a3a-8b0e-1f6f4a1e7c55"
    first, second, third, fourth = await jobs.acquire(stub, session_id, max_in_flight=4)
    beat = await jobs.heartbeat(stub, session_id, 1, [first.lease_token])
    assert jobs.verdicts(beat) == [jobs.HELD]
    assert await jobs.complete(stub, first.lease_token) == job_pb2.JOB_STATUS_SUCCEEDED
    assert await jobs.fail(stub, second.lease_token) == job_pb2.JOB_STATUS_FAILED
    assert await jobs.release(stub, third.lease_token) == job_pb2.JOB_STATUS_PENDING
    await jobs.settle(stub, [jobs.snoozed(fourth.lease_token, jobs.duration(hours=1))])
    assert (await jobs.retry(stub, second.job.id, 1)).status == job_pb2.JOB_STATUS_PENDING
    assert (await jobs.cancel(stub, second.job.id)).status == job_pb2.JOB_STATUS_CANCELLED
    async with lease_stream(stub, max_in_flight=2) as stream:
        leased = await stream.until_leases(2)
        await jobs.complete(stub, leased[0].lease_token)
    listed = await stub.ListJobs(pb.ListJobsRequest(queue="emails"))
    assert len(listed.jobs) == 6
    assert len((await stub.ListWorkers(pb.ListWorkersRequest())).workers) == 2
    assert await miscounts(deployment.runtime.hot) == []


async def test_queues_are_changed_emptied_and_deleted(
    queue_stub: QueueStub, replica: JobReplica
) -> None:
    dead = await queues.make(queue_stub, "dead")
    await queues.make(queue_stub, "emails", max_retries=0, dead_letter_queue_id=dead.id)
    await jobs.create_all(replica.stub, [jobs.spec() for _ in range(3)])
    for taken in await jobs.acquire(replica.stub, max_in_flight=2):
        await jobs.fail(replica.stub, taken.lease_token)
    redrive = queue_pb.RedriveJobsRequest(queue="dead", max_jobs=1)
    assert (await queue_stub.RedriveJobs(redrive)).redriven_jobs == 1
    stats = await queue_stub.GetQueueStats(queue_pb.GetQueueStatsRequest(queue="emails"))
    assert (stats.counts.pending, stats.counts.failed) == (2, 2)
    for queue, removed in (("dead", (1, 0)), ("emails", (2, 2))):
        statuses = [job_pb2.JOB_STATUS_PENDING, job_pb2.JOB_STATUS_FAILED]
        purge = queue_pb.PurgeQueueRequest(queue=queue, statuses=statuses)
        purged = await queue_stub.PurgeQueue(purge)
        assert (purged.cancelled_jobs, purged.deleted_jobs) == removed
    await queue_stub.PauseQueue(queue_pb.PauseQueueRequest(queue="emails"))
    await queue_stub.ResumeQueue(queue_pb.ResumeQueueRequest(queue="emails"))
    changed = queues.update("emails", "description", description="changed")
    assert (await queue_stub.UpdateQueue(changed)).queue.description == "changed"
    await queue_stub.DeleteQueue(queue_pb.DeleteQueueRequest(queue="emails"))
    left = await queue_stub.ListQueues(queue_pb.ListQueuesRequest())
    assert [queue.name for queue in left.queues] == ["dead"]


async def test_a_key_is_known_and_its_use_is_noted(
    deployment: Deployment, open_folder: Path
) -> None:
    tenant = await insert_tenant(deployment.runtime.hot, "tenant")
    settings = deployment.runtime.settings.model_copy(update={"authentication": "on"})
    async with job_replica(settings, open_folder, "job") as replica:
        asked = pb.ListJobsRequest(project_id=str(tenant.project_id))
        answer = await replica.stub.ListJobs(asked, metadata=bearer(tenant.key))
        assert list(answer.jobs) == []

        async def is_noted() -> bool:
            used = "SELECT last_used_at FROM taskforge.api_keys"
            return await deployment.runtime.hot.fetchval(used) is not None

        await eventually(is_noted, "the use of the key is noted")


async def test_the_scheduler_does_all_that_it_does(deployment: Deployment) -> None:
    pool = deployment.runtime.hot
    for change in ("create", "attach"):
        await getattr(queries, f"{change}_partition")(pool, OLD)
    old = await finished_jobs(deployment.runtime, OLD)
    unowned = await finished_jobs(deployment.runtime, OLD - timedelta(days=1))
    assert await where(deployment.runtime, old + unowned) == {partition_name(OLD), DEFAULT_TABLE}
    open_queue = await insert_queue(pool, "open")
    ids = await insert_jobs(pool, open_queue, priorities=[0] * 300)
    gone = await insert_session(pool, expires_in=-DAY, created_ago=2 * DAY)
    busy = await insert_session(pool)
    await lease(pool, ids[:1], gone)
    await lease(pool, ids[1:2], busy, times_out_in=-DAY)
    due = await insert_jobs(pool, open_queue, JobStatus.SCHEDULED)
    await pool.execute("UPDATE jobs SET scheduled_for = clock_timestamp() WHERE status = 2")
    await insert_queue(pool, "paused", is_active=False, accepts_jobs=False, resume_at=LONG_AGO)
    deleted = await insert_queue(pool, "deleted", deleted_at=LONG_AGO)
    slipped = await insert_jobs(pool, deleted)
    await insert_server(pool, alive_for=-DAY)
    await pool.execute(
        "INSERT INTO request_ids (project_id, request_id, content_hash, job_ids, created_at)"
        " VALUES ($1, 'old', '', '{}', $2)",
        DEFAULT_PROJECT_ID,
        LONG_AGO,
    )
    for _ in range(2):  # a session goes once it has lost its leases
        await schedule(deployment.runtime)
    silent, overdue, ready, cancelled = await statuses(pool, [*ids[:2], *due, *slipped])
    assert silent is ready is JobStatus.PENDING
    assert overdue is not JobStatus.PROCESSING
    assert cancelled is JobStatus.CANCELLED
    sessions = await pool.fetch("SELECT session_id FROM sessions")
    assert [row["session_id"] for row in sessions] == [busy]
    names = await pool.fetch("SELECT name FROM queues WHERE is_active AND deleted_at IS NULL")
    assert {"open", "paused"} <= {row["name"] for row in names}
    for emptied in ("request_ids", "servers", "queue_deltas"):
        assert await pool.fetchval(f"SELECT count(*) FROM {emptied}") == 0, emptied
    tables = await queries.list_partitions(pool)
    assert partition_name(OLD) not in tables
    assert list(tables.values()) == [True] * 8
    assert await pool.fetchval("SELECT count(*) FROM job_history") == len(slipped)
    assert await miscounts(pool) == []


@pytest.mark.parametrize("role_name", ["owner", "runtime"])
async def test_either_role_may_make_the_first_key(
    deployment: Deployment, role_name: Literal["owner", "runtime"]
) -> None:
    database = deployment.owner if role_name == "owner" else deployment.runtime
    key = await bootstrap(database.settings.require_database_url())
    caller = await CredentialAuthenticator(deployment.runtime).authenticate(
        f"Bearer {key.text}", ()
    )
    assert caller.is_operator


async def test_the_owner_owns_what_the_scheduler_makes(deployment: Deployment) -> None:
    await queries.create_partition(deployment.runtime.hot, OLD)
    owners = await deployment.owner.hot.fetch(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'taskforge'"
    )
    assert [row["tableowner"] for row in owners] == [deployment.owner_name]


async def test_the_functions_are_the_owners_though_a_superuser_made_them(
    deployment: Deployment, empty_database_url: str
) -> None:
    script = files("taskforge_core.migrations") / "versions" / "0004_roles.sql"
    superuser = await asyncpg.connect(empty_database_url)
    try:
        for function in await superuser.fetch(
            "SELECT oid::regprocedure::text AS name FROM pg_proc"
            " WHERE pronamespace = 'taskforge'::regnamespace AND prorettype <> 'trigger'::regtype"
        ):
            await superuser.execute(f"DROP FUNCTION {function['name']}")
        await superuser.execute(script.read_text())
        owners = await superuser.fetch(
            "SELECT DISTINCT pg_get_userbyid(proowner) AS name FROM pg_proc"
            " WHERE pronamespace = 'taskforge'::regnamespace"
        )
        assert [row["name"] for row in owners] == [deployment.owner_name]
    finally:
        await superuser.close()
