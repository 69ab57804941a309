"""What a credential gives, and for how long: over real servers that authenticate.

Who is not let in at all is proved for every RPC among the abuse.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs
from tests.support.job_replicas import JobReplica, job_replica
from tests.support.refusals import expect_error
from tests.support.snapshots import unchanged
from tests.support.tenants import (
    JOB_WRITE,
    Tenant,
    bearer,
    bearing_channel,
    insert_key,
    insert_tenant,
    key_id,
)

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_core.database import Database
from taskforge_core.settings import Settings

END_WITHIN = 5.0
"""Seconds: the promise. The tests wait for the event and only stop here."""


@pytest.fixture
async def guarded(settings: Settings, open_folder: Path) -> AsyncIterator[JobReplica]:
    """A replica of job_service that authenticates."""
    guarded = settings.model_copy(update={"authentication": "on"})
    async with job_replica(guarded, open_folder, "job") as replica:
        yield replica


@pytest.fixture
async def tenant(database: Database) -> Tenant:
    made = await insert_tenant(database.hot, "acme")
    await database.hot.execute(
        "INSERT INTO taskforge.queues (project_id, id, name) VALUES ($1, $2, 'emails')",
        made.project_id,
        uuid4(),
    )
    return made


def lease(session_id: str = "") -> pb.LeaseJobsRequest:
    return pb.LeaseJobsRequest(session_id=session_id or str(uuid4()), max_in_flight=1)


CREATE = pb.CreateJobRequest(job=job_pb2.JobSpec(queue="emails", job_type="send"))


async def until_refused(stream: Any) -> grpc.aio.AioRpcError:
    """Read a stream until it is ended with an error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all(stream)
    return caught.value


async def read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        pass


# -- Coming in ----------------------------------------------------------------------------------


async def test_a_key_lets_its_owner_in_and_its_use_is_noted(
    guarded: JobReplica, tenant: Tenant, database: Database
) -> None:
    for scheme in ("Bearer", "bearer"):
        answer = await guarded.stub.CreateJob(
            CREATE, metadata=(("authorization", f"{scheme} {tenant.key}"),)
        )
        assert answer.job.project_id == str(tenant.project_id)
    await guarded.server.grpc.access.refresh()
    used = await database.hot.fetchval(
        "SELECT last_used_at FROM taskforge.api_keys WHERE id = $1", key_id(tenant.key)
    )
    assert used is not None


async def test_a_disabled_project_is_refused(
    guarded: JobReplica, tenant: Tenant, database: Database
) -> None:
    await disable(database, "projects", tenant.project_id)
    refusal = await expect_error(
        guarded.stub.CreateJob(CREATE, metadata=bearer(tenant.key)),
        StatusCode.FAILED_PRECONDITION,
        "PROJECT_DISABLED",
    )
    assert refusal.metadata == {"project": str(tenant.project_id)}


async def test_a_request_larger_than_the_quota_is_refused(
    guarded: JobReplica, tenant: Tenant, database: Database
) -> None:
    await database.hot.execute(
        "UPDATE taskforge.projects SET max_request_bytes = 1024 WHERE id = $1", tenant.project_id
    )
    large = job_pb2.JobSpec(queue="emails", job_type="send", payload='"' + "x" * 1024 + '"')
    async with unchanged(database.hot):
        refusal = await expect_error(
            guarded.stub.CreateJob(pb.CreateJobRequest(job=large), metadata=bearer(tenant.key)),
            StatusCode.RESOURCE_EXHAUSTED,
            "REQUEST_TOO_LARGE",
        )
    assert refusal.metadata["limit"] == "1024"
    await guarded.stub.CreateJob(CREATE, metadata=bearer(tenant.key))


async def test_probes_need_no_credential(guarded: JobReplica) -> None:
    health: Any = health_pb2_grpc.HealthStub(guarded.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="taskforge.v1.JobService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


# -- Staying ------------------------------------------------------------------------------------


async def revoke(database: Database, key: str) -> None:
    await database.hot.execute(
        "UPDATE taskforge.api_keys SET revoked_at = now() WHERE id = $1", key_id(key)
    )


async def limit(database: Database, key: str, change: str) -> None:
    await database.hot.execute(f"UPDATE taskforge.api_keys SET {change} WHERE id = $1", key_id(key))


async def disable(
    database: Database,
    table: str,
    id: UUID,  # noqa: A002
    *,
    name: str | None = None,
) -> None:
    await database.hot.execute(
        f"UPDATE taskforge.{table} SET disabled_at = now(), name = coalesce($2, name)"
        " WHERE id = $1",
        id,
        name,
    )


async def rename(database: Database, project_id: UUID, name: str) -> None:
    await database.hot.execute(
        "UPDATE taskforge.projects SET name = $2 WHERE id = $1", project_id, name
    )


async def expire(database: Database, key: str) -> None:
    await database.hot.execute(
        "UPDATE taskforge.api_keys SET expires_at = now() WHERE id = $1", key_id(key)
    )


Ending = Callable[[Database, Tenant, str], Any]

ENDINGS: dict[str, tuple[Ending, StatusCode, str]] = {
    "the key is revoked": (
        lambda database, _, key: revoke(database, key),
        StatusCode.UNAUTHENTICATED,
        "CREDENTIAL_REVOKED",
    ),
    "the key expires": (
        lambda database, _, key: expire(database, key),
        StatusCode.UNAUTHENTICATED,
        "CREDENTIAL_EXPIRED",
    ),
    "the organisation is disabled": (
        lambda database, tenant, _: disable(database, "organisations", tenant.organisation_id),
        StatusCode.UNAUTHENTICATED,
        "CREDENTIAL_REVOKED",
    ),
    "the key loses a permission": (
        lambda database, _, key: limit(database, key, "permissions = '{1}'"),
        StatusCode.UNAUTHENTICATED,
        "CREDENTIAL_REVOKED",
    ),
    "the key is bound to another project": (
        lambda database, tenant, key: limit(
            database, key, f"project_id = '{tenant.other_project_id}'"
        ),
        StatusCode.UNAUTHENTICATED,
        "CREDENTIAL_REVOKED",
    ),
    "the project is disabled": (
        lambda database, tenant, _: disable(database, "projects", tenant.project_id),
        StatusCode.FAILED_PRECONDITION,
        "PROJECT_DISABLED",
    ),
    "the project is renamed and disabled at once": (
        lambda database, tenant, _: disable(
            database, "projects", tenant.project_id, name="formerly-default"
        ),
        StatusCode.FAILED_PRECONDITION,
        "PROJECT_DISABLED",
    ),
}


@pytest.mark.parametrize("named", [False, True], ids=["default project", "named project"])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_open_stream_ends_when(
    guarded: JobReplica, tenant: Tenant, database: Database, ending: str, named: bool
) -> None:
    end, code, reason = ENDINGS[ending]
    key = await insert_key(database.hot, tenant.organisation_id, [JOB_WRITE])
    async with bearing_channel(guarded.server.grpc.address, key) as channel:
        request = lease()
        if named:
            request.project_id = str(tenant.project_id)
        stream: Any = JobServiceStub(channel).LeaseJobs(request)
        async with bearing_channel(guarded.server.grpc.address, tenant.key) as other_channel:
            other: Any = JobServiceStub(other_channel).LeaseJobs(lease())
            await guarded.until_taking(2)
            await end(database, tenant, key)
            async with asyncio.timeout(END_WITHIN):
                error = await until_refused(stream)
            assert error.code() is code
            assert reason in str(error.trailing_metadata())
            if "key" in ending:
                # Whoever uses another key goes on.
                await guarded.until_taking(1)
                assert not other.done()


@pytest.mark.parametrize("is_taken", [False, True], ids=["free", "taken"])
async def test_a_stream_that_named_no_project_ends_with_its_own_whatever_is_called_default_by_now(
    guarded: JobReplica, tenant: Tenant, database: Database, is_taken: bool
) -> None:
    async with bearing_channel(guarded.server.grpc.address, tenant.key) as channel:
        stub = JobServiceStub(channel)
        stream: Any = stub.LeaseJobs(lease())
        other: Any = stub.LeaseJobs(
            pb.LeaseJobsRequest(
                project_id=str(tenant.other_project_id), session_id=str(uuid4()), max_in_flight=1
            )
        )
        await guarded.until_taking(2)
        await rename(database, tenant.project_id, "formerly-default")
        if is_taken:
            await rename(database, tenant.other_project_id, "default")
        for _ in range(2):
            await guarded.server.grpc.access.refresh()
        await guarded.until_taking(2)
        await disable(database, "projects", tenant.project_id)
        async with asyncio.timeout(END_WITHIN):
            error = await until_refused(stream)
        assert error.code() is StatusCode.FAILED_PRECONDITION
        assert "PROJECT_DISABLED" in str(error.trailing_metadata())
        await guarded.until_taking(1)
        assert not other.done()


async def test_the_jobs_of_a_revoked_worker_are_not_lost(
    guarded: JobReplica, tenant: Tenant, database: Database
) -> None:
    worker = await insert_key(database.hot, tenant.organisation_id, [JOB_WRITE])
    await guarded.stub.CreateJob(CREATE, metadata=bearer(tenant.key))
    session_id = str(uuid4())
    async with bearing_channel(guarded.server.grpc.address, worker) as channel:
        stub = JobServiceStub(channel)
        stream: Any = stub.LeaseJobs(lease(session_id))
        message = await stream.read()
        [held] = message.leases.leases
        await revoke(database, worker)
        await until_refused(stream)
        beat: Any = stub.Heartbeat(pb.HeartbeatRequest(session_id=session_id, sequence=1))
        await expect_error(beat, StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")
    # It is still leased, and its session ends with its time.
    job = await guarded.stub.GetJob(
        pb.GetJobRequest(job_id=held.job.id), metadata=bearer(tenant.key)
    )
    assert job.job.status == job_pb2.JOB_STATUS_PROCESSING


async def test_no_log_line_holds_a_secret_and_each_names_the_caller(
    guarded: JobReplica, tenant: Tenant
) -> None:
    request_id = "from-the-caller"
    with capture_logs() as lines:
        for key in (tenant.key, f"{tenant.key[:-3]}AAA"):
            with pytest.raises(grpc.aio.AioRpcError):
                await guarded.stub.GetJob(
                    pb.GetJobRequest(job_id=str(uuid4())),
                    metadata=(*bearer(key), ("x-request-id", request_id)),
                )
    secret = tenant.key.rpartition("_")[2][:20]
    assert all(secret not in str(line) for line in lines)
    refused, unknown = [line for line in lines if line["event"] == "rpc"]
    assert refused["caller"] == f"key {key_id(tenant.key)}"
    assert refused["organisation"] == str(tenant.organisation_id)
    assert refused["project"] == str(tenant.project_id)
    assert refused["request_id"] == unknown["request_id"] == request_id
    assert refused["code"] == "NOT_FOUND"
    assert refused["ms"] > 0
    assert "caller" not in unknown
