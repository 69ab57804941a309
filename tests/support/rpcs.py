"""Every RPC of the contract, found in the descriptors: a valid request, and ways to send it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc import StatusCode
from grpc_status import rpc_status
from tests.support.administration import administration
from tests.support.job_replicas import job_replica
from tests.support.refusals import read_refusal
from tests.support.rows import insert_jobs, insert_queue
from tests.support.tenants import Tenant, bearer, insert_key, key_id

from taskforge.v1 import admin_service_pb2, job_service_pb2, permission_pb2, queue_service_pb2
from taskforge_core.database import Database
from taskforge_core.settings import Settings
from taskforge_core.tokens import NO_STREAM, encode_token, token_head

FILES = (admin_service_pb2, job_service_pb2, queue_service_pb2)
SERVICES: list[ServiceDescriptor] = [
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS: dict[str, MethodDescriptor] = {
    method.name: method for service in SERVICES for method in service.methods
}


@dataclass(frozen=True)
class Things:
    """What a request names: those of one tenant, or of nobody."""

    organisation: str
    project: str
    queue: str
    job: str
    session: str
    api_key: str
    token: str


def nothing() -> Things:
    """Ids of things that do not exist."""
    organisation, project, queue, job, session, api_key = (str(uuid4()) for _ in range(6))
    token = encode_token(token_head(UUID(project), NO_STREAM), job, 7)
    return Things(organisation, project, queue, job, session, api_key, token)


Fields = Callable[[Things], dict[str, Any]]

_SESSION = "session_id"


def _lease(of: Things) -> dict[str, Any]:
    return {"project_id": of.project, _SESSION: of.session, "max_in_flight": 1}


def _queue(of: Things) -> dict[str, Any]:
    return {"project_id": of.project, "queue": of.queue}


def _job(of: Things) -> dict[str, Any]:
    return {"project_id": of.project, "job_id": of.job}


def _spec(of: Things) -> dict[str, Any]:
    return {"queue": of.queue, "job_type": "send"}


REQUESTS: dict[str, Fields] = {
    "CreateOrganisation": lambda _: {"name": f"made-{uuid4()}"},
    "GetOrganisation": lambda of: {"organisation_id": of.organisation},
    "ListOrganisations": lambda _: {},
    "UpdateOrganisation": lambda of: {
        "organisation_id": of.organisation,
        "name": f"named-{uuid4()}",
        "update_mask": {"paths": ["name"]},
    },
    "CreateProject": lambda of: {"organisation_id": of.organisation, "name": f"made-{uuid4()}"},
    "GetProject": lambda of: {"project_id": of.project},
    "ListProjects": lambda of: {"organisation_id": of.organisation},
    "UpdateProject": lambda of: {
        "project_id": of.project,
        "name": f"named-{uuid4()}",
        "update_mask": {"paths": ["name"]},
    },
    "CreateApiKey": lambda of: {
        "organisation_id": of.organisation,
        "name": "made",
        "permissions": [permission_pb2.PERMISSION_JOB_READ],
    },
    "GetApiKey": lambda of: {"api_key_id": of.api_key},
    "ListApiKeys": lambda of: {"organisation_id": of.organisation},
    "RevokeApiKey": lambda of: {"api_key_id": of.api_key},
    "ListAuditEntries": lambda of: {"organisation_id": of.organisation},
    "CreateQueue": lambda of: {"project_id": of.project, "name": f"made-{uuid4().hex}"},
    "GetQueue": _queue,
    "ListQueues": lambda of: {"project_id": of.project},
    "UpdateQueue": lambda of: _queue(of) | {"priority": 1, "update_mask": {"paths": ["priority"]}},
    "DeleteQueue": _queue,
    "PauseQueue": _queue,
    "ResumeQueue": _queue,
    "GetQueueStats": _queue,
    "PurgeQueue": lambda of: _queue(of) | {"statuses": [1]},
    "RedriveJobs": _queue,
    "CreateJob": lambda of: {"project_id": of.project, "job": _spec(of)},
    "BatchCreateJobs": lambda of: {"project_id": of.project, "jobs": [_spec(of)]},
    "GetJob": _job,
    "ListJobs": lambda of: {"project_id": of.project},
    "GetJobStats": lambda of: {"project_id": of.project},
    "CancelJob": _job,
    "RetryJob": _job,
    "LeaseJobs": _lease,
    "AcquireJobs": _lease,
    "Heartbeat": lambda of: {"project_id": of.project, _SESSION: of.session, "sequence": 1},
    "CompleteJob": lambda of: {"lease_token": of.token},
    "FailJob": lambda of: {"lease_token": of.token, "failure": {"message": "no"}},
    "ReleaseJob": lambda of: {"lease_token": of.token},
    "BatchSettleJobs": lambda of: {"settlements": [{"lease_token": of.token, "release": {}}]},
    "UpdateWorker": lambda of: {
        "project_id": of.project,
        _SESSION: of.session,
        "max_in_flight": 1,
    },
    "ListWorkers": lambda of: {"project_id": of.project},
}

NAMES_NOTHING = {"CreateOrganisation", "ListOrganisations"}
"""Their requests name nobody's things."""


MAKE_SESSIONS = {"LeaseJobs", "AcquireJobs"}
"""Afterwards the caller's own project has a session of that id too."""


@dataclass(frozen=True)
class Answer:
    """What a call was answered with."""

    code: StatusCode
    reason: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    message: str = ""

    def without(self, things: Things) -> "Answer":
        """The same answer, with the ids that the request itself named left out."""
        message, metadata = self.message, dict(self.metadata)
        for value in vars(things).values():
            message = message.replace(value, "…")
            metadata = {key: each.replace(value, "…") for key, each in metadata.items()}
        return Answer(self.code, self.reason, tuple(sorted(metadata.items())), message)


class Contract:
    """Calls any RPC by its name."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._channels = {
            service: grpc.aio.insecure_channel(address) for service, address in addresses.items()
        }

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)

    async def call(self, name: str, key: str, fields: dict[str, Any]) -> Answer:
        """The answer to a call with these fields; of a stream, its first message."""
        request = GetMessageClass(METHODS[name].input_type)(**fields)
        return await self.send(name, bearer(key) if key else (), request)

    async def send(self, name: str, metadata: Any, request: Message | bytes) -> Answer:
        """The answer to a request, which may be no message at all."""
        try:
            return _of_items(await self.raw(name, metadata, request))
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)  # type: ignore[arg-type]
            if status is None and error.code() is StatusCode.RESOURCE_EXHAUSTED:
                # gRPC itself refuses messages above the server's limit, without our details.
                return Answer(error.code(), "", (), error.details() or "")
            return _answer(status)

    async def raw(self, name: str, metadata: Any, request: Message | bytes) -> Any:
        """The response of a call, or the first of a stream; raises what gRPC raises."""
        method = METHODS[name]
        service = method.containing_service
        channel = self._channels[service.name]
        streams = method.server_streaming
        make = channel.unary_stream if streams else channel.unary_unary
        rpc: Any = make(
            f"/{service.full_name}/{name}",
            request_serializer=_serialised,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        call = rpc(request, metadata=metadata, timeout=30)
        try:
            return await (_first(call) if streams else call)
        finally:
            call.cancel()


def _serialised(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


async def _first(call: Any) -> Message | None:
    """The first message of a stream; None where it is open and has nothing to say."""
    waiting: Awaitable[Message] = call.read()
    try:
        return await asyncio.wait_for(waiting, 0.2)
    except TimeoutError:
        return None


def _of_items(response: Any) -> Answer:
    """What an answer says of its one item, for calls that have a status an item."""
    for result in getattr(response, "results", ()):
        if result.HasField("error"):
            return _answer(result.error)
    return Answer(StatusCode.OK)


def _answer(status: status_pb2.Status | None) -> Answer:
    assert status is not None, "a refusal has details"
    refusal = read_refusal(status)
    [code] = [each for each in StatusCode if each.value[0] == refusal.code]
    return Answer(code, refusal.info.reason, tuple(refusal.metadata.items()), refusal.message)


@asynccontextmanager
async def guarded_contract(
    settings: Settings, database: Database, folder: Path
) -> AsyncIterator[Contract]:
    """Both servers, with authentication on."""
    guarded = settings.model_copy(update={"authentication": "on"})
    database.settings = guarded
    async with (
        job_replica(guarded, folder, "job") as replica,
        administration(database, folder) as admin,
    ):
        contract = Contract(
            {
                "JobService": replica.server.grpc.address,
                "QueueService": admin.address,
                "AdminService": admin.address,
            }
        )
        yield contract
        await contract.close()


async def things_of(database: Database, tenant: Tenant) -> Things:
    """Of each kind one that the tenant has."""
    queue_id = await insert_queue(database.hot, "emails", project_id=tenant.project_id)
    [job_id] = await insert_jobs(database.hot, queue_id, project_id=tenant.project_id)
    key = await insert_key(database.hot, tenant.organisation_id)
    token = encode_token(token_head(tenant.project_id, NO_STREAM), str(job_id), 7)
    return Things(
        str(tenant.organisation_id),
        str(tenant.project_id),
        str(queue_id),
        str(job_id),
        str(uuid4()),
        str(key_id(key)),
        token,
    )


async def rows_of(database: Database, tenant: Tenant) -> list[Any]:
    """All that another tenant has."""
    return [
        await database.hot.fetch(
            f"SELECT t::text FROM taskforge.{table} AS t WHERE project_id = $1 ORDER BY 1",
            tenant.project_id,
        )
        for table in ("queues", "jobs", "job_history", "sessions", "queue_deltas")
    ]
