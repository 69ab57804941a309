"""What a request can name: a tenant's things as they are in use, and things of nobody."""

from dataclasses import dataclass, fields
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from tests.support.rows import insert_jobs, insert_queue
from tests.support.rpcs import Contract, message
from tests.support.tenants import Tenant, bearer, insert_key, key_id
from tests.support.waiting import PATIENCE, eventually

from taskforge_core.database import Database
from taskforge_core.statuses import JobStatus
from taskforge_core.tokens import NO_STREAM, decode_token, encode_token, token_head


@dataclass(frozen=True)
class Things:
    """What one tenant has, more than once of each kind; or the names of what nobody has."""

    organisation: str
    project: str
    other_project: str
    queue: str
    queue_name: str
    empty_queue: str
    """The name of another queue, which has no jobs."""
    failed_job: str
    waiting_job: str
    leased_job: str
    """It is leased, by `token`, to `session`."""
    session: str
    token: str
    api_key: str
    request_id: str
    """That of a creation."""

    @property
    def values(self) -> list[str]:
        """All by which they could be recognised."""
        return [getattr(self, field.name) for field in fields(self)]


def nothing() -> Things:
    """Names of things that do not exist."""
    names = {field.name: str(uuid4()) for field in fields(Things)}
    head = token_head(UUID(names["project"]), NO_STREAM)
    return Things(**names | {"token": encode_token(head, names["leased_job"], 7)})


async def things_of(database: Database, contract: Contract, tenant: Tenant) -> Things:
    """New things of this tenant, made by its own calls where they can be."""
    names = {kind: f"{kind}-{uuid4().hex}" for kind in ("queue", "empty", "request")}
    queue_id = await insert_queue(database.hot, names["queue"], project_id=tenant.project_id)
    await insert_queue(database.hot, names["empty"], project_id=tenant.project_id)
    [failed_job] = await insert_jobs(
        database.hot, queue_id, JobStatus.FAILED, project_id=tenant.project_id
    )
    call = partial(_call, contract, tenant)
    job: Any = {"queue": names["queue"], "job_type": "send"}
    session = str(uuid4())
    await call("CreateJob", job=job | {"request_id": names["request"]})
    taken = await call("AcquireJobs", session_id=session, max_in_flight=1, queues=[names["queue"]])
    [lease] = taken.leases
    await eventually(partial(calls_are_closed, database), "the lease call is closed")
    waiting = await call("CreateJob", job=job)
    key = await insert_key(database.hot, tenant.organisation_id)
    return Things(
        organisation=str(tenant.organisation_id),
        project=str(tenant.project_id),
        other_project=str(tenant.other_project_id),
        queue=str(queue_id),
        queue_name=names["queue"],
        empty_queue=names["empty"],
        failed_job=str(failed_job),
        waiting_job=waiting.job.id,
        leased_job=decode_token(lease.lease_token).job_id,
        session=session,
        token=lease.lease_token,
        api_key=str(key_id(key)),
        request_id=names["request"],
    )


async def _call(contract: Contract, tenant: Tenant, name: str, /, **fields: Any) -> Any:
    sent = message(name, project_id=str(tenant.project_id), **fields)
    return await contract.raw(name, bearer(tenant.key), sent, patience=PATIENCE)


async def calls_are_closed(database: Database) -> bool:
    """Whether it is noted of every lease call that it has ended, which is done after its answer."""
    closed: bool = await database.hot.fetchval(
        "SELECT NOT EXISTS (SELECT FROM taskforge.sessions WHERE call_is_open)"
    )
    return closed
