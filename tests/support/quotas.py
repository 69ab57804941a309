"""Tenants whose projects have quotas, and their calls at two replicas that authenticate."""

from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import StatusCode
from tests.support.job_replicas import JobReplica
from tests.support.rows import insert_queue
from tests.support.stubs import JobStub
from tests.support.tenants import Tenant, bearing_channel, insert_tenant

from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_core.database import Database


@dataclass
class Client:
    """A tenant's calls at both replicas."""

    tenant: Tenant
    first: JobStub
    second: JobStub

    @property
    def both(self) -> tuple[JobStub, JobStub]:
        return self.first, self.second


async def client(
    stack: AsyncExitStack, database: Database, replicas: Iterable[JobReplica], name: str
) -> Client:
    tenant = await insert_tenant(database.hot, name)
    await insert_queue(database.hot, "emails", project_id=tenant.project_id)
    stubs = [
        JobServiceStub(
            await stack.enter_async_context(
                bearing_channel(replica.server.grpc.address, tenant.key)
            )
        )
        for replica in replicas
    ]
    return Client(tenant, *stubs)


async def allow(database: Database, of: Client, **quotas: int) -> None:
    """Set quotas of a project that no replica knows yet."""
    for name, value in quotas.items():
        await database.hot.execute(
            f"UPDATE taskforge.projects SET {name} = $1 WHERE id = $2",
            value,
            of.tenant.project_id,
        )


async def spend(database: Database, of: Client, room: float = -1000) -> None:
    """Leave so much of the budget of jobs."""
    await database.hot.execute(
        "INSERT INTO taskforge.job_budgets VALUES ($1, $2, clock_timestamp(), 0)"
        " ON CONFLICT (project_id) DO UPDATE SET (room, counted_at) = ($2, clock_timestamp())",
        of.tenant.project_id,
        room,
    )


async def jobs_of(database: Database, of: Client) -> int:
    count: int = await database.hot.fetchval(
        "SELECT count(*) FROM taskforge.jobs WHERE project_id = $1", of.tenant.project_id
    )
    return count


async def outcome(call: Awaitable[Any]) -> str:
    """`ok`, or the reason of the refusal, which must be that of a quota."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not StatusCode.RESOURCE_EXHAUSTED:
            raise
        return str(error.details())
    return "ok"
