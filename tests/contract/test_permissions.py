"""Each RPC of the contract, called by (no key, another permission, another organisation, valid).

The RPCs are found in the descriptors: a new one without a permission, or without a request here,
makes a test fail. `pytest -s -k table` prints the codes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
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
from tests.support.snapshots import unchanged
from tests.support.tenants import Tenant, bearer, insert_key, insert_tenant, key_id

from taskforge.v1 import admin_service_pb2, job_service_pb2, permission_pb2, queue_service_pb2
from taskforge_core.callers import ALL_PERMISSIONS
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

PROTOS = Path(__file__).parents[2] / "protos/taskforge/v1"


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
        """The answer to a call; that of a stream is its first message."""
        method = METHODS[name]
        service = method.containing_service
        request = GetMessageClass(method.input_type)(**fields)
        channel = self._channels[service.name]
        streams = method.server_streaming
        make = channel.unary_stream if streams else channel.unary_unary
        rpc: Any = make(
            f"/{service.full_name}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        call = rpc(request, metadata=bearer(key) if key else (), timeout=30)
        try:
            response = await (_first(call) if streams else call)
        except grpc.aio.AioRpcError as error:
            return _answer(rpc_status.from_call(error))  # type: ignore[arg-type]
        finally:
            call.cancel()
        return _of_items(response)


async def _first(call: Any) -> Message | None:
    """The first message of a stream; None where it is open and has nothing to say."""
    waiting: Awaitable[Message] = call.read()
    try:
        return await asyncio.wait_for(waiting, 0.5)
    except TimeoutError:
        return None


def _of_items(response: Any) -> Answer:
    """What an answer says of its one item, for calls that have a status an item."""
    for result in getattr(response, "results", ()):
        if result.HasField("error"):
            return _answer(result.error)
    return Answer(StatusCode.OK)


def _answer(status: status_pb2.Status) -> Answer:
    refusal = read_refusal(status)
    [code] = [each for each in StatusCode if each.value[0] == refusal.code]
    return Answer(code, refusal.info.reason, tuple(refusal.metadata.items()), refusal.message)


@pytest.fixture
async def contract(
    settings: Settings, database: Database, open_folder: Path
) -> AsyncIterator[Contract]:
    """Both servers, with authentication on."""
    guarded = settings.model_copy(update={"authentication": "on"})
    database.settings = guarded
    async with (
        job_replica(guarded, open_folder, "job") as replica,
        administration(database, open_folder) as admin,
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


def needed(name: str) -> int:
    permission: int = METHODS[name].GetOptions().Extensions[permission_pb2.permission]
    return permission


def test_every_service_of_the_contract_is_looked_at() -> None:
    files = {path.stem for path in PROTOS.glob("*_service.proto")}
    assert files == {file.DESCRIPTOR.name.rpartition("/")[2][: -len(".proto")] for file in FILES}


@pytest.mark.parametrize("name", METHODS)
def test_every_rpc_names_its_permission(name: str) -> None:
    assert needed(name) in ALL_PERMISSIONS


def test_every_rpc_has_a_request_here() -> None:
    assert set(REQUESTS) == set(METHODS)


async def test_the_table_of_who_may_call_what(contract: Contract, database: Database) -> None:
    own = await insert_tenant(database.hot, "own")
    foreign = await insert_tenant(database.hot, "foreign")
    own_things, foreign_things = await things_of(database, own), await things_of(database, foreign)
    rows: dict[str, list[Answer]] = {}
    for name, fields in REQUESTS.items():
        others = ALL_PERMISSIONS - {needed(name)}
        lacking = await insert_key(database.hot, own.organisation_id, others)
        async with unchanged(database.hot):
            without = await contract.call(name, "", {})
            denied = await contract.call(name, lacking, fields(own_things))
        assert (without.code, without.reason) == (
            StatusCode.UNAUTHENTICATED,
            "CREDENTIAL_MISSING",
        ), name
        assert (denied.code, denied.reason) == (
            StatusCode.PERMISSION_DENIED,
            "PERMISSION_MISSING",
        ), name
        rows[name] = [without, denied]
        unknown = nothing()
        async with unchanged(database.hot):
            if name not in NAMES_NOTHING:
                strange = await contract.call(name, own.key, fields(foreign_things))
                absent = await contract.call(name, own.key, fields(unknown))
                # Another organisation's things look exactly like things that do not exist.
                assert strange.without(foreign_things) == absent.without(unknown), name
                assert strange.code in {StatusCode.NOT_FOUND, StatusCode.ABORTED}, name
                rows[name].append(strange)
            else:
                rows[name].append(Answer(StatusCode.OK, "names nobody's"))
    for name, fields in REQUESTS.items():
        valid = await contract.call(name, own.key, fields(own_things))
        assert valid.code not in {StatusCode.UNAUTHENTICATED, StatusCode.INTERNAL}, (name, valid)
        rows[name].append(valid)
        if name != "CreateOrganisation":
            assert valid.code is not StatusCode.PERMISSION_DENIED, (name, valid)
            assert valid.reason != "PROJECT_NOT_FOUND", (name, valid)
    print()
    for name, answers in rows.items():
        cells = (f"{answer.code.name} {answer.reason}".strip() for answer in answers)
        print(f"| {name} | {' | '.join(cells)} |")


async def test_foreign_things_inside_a_project_of_ones_own_do_not_exist(
    contract: Contract, database: Database
) -> None:
    """The project is the caller's, and all other ids are somebody else's."""
    own = await insert_tenant(database.hot, "own")
    foreign = await insert_tenant(database.hot, "foreign")
    foreign_things = await things_of(database, foreign)
    await contract.call("AcquireJobs", foreign.key, REQUESTS["AcquireJobs"](foreign_things))
    for name in sorted(REQUESTS, key=MAKE_SESSIONS.__contains__):
        fields, message = REQUESTS[name], METHODS[name].input_type
        if "project_id" not in message.fields_by_name or name in {"GetProject", "UpdateProject"}:
            continue
        unknown = nothing()
        mine = {"project_id": str(own.project_id)}
        if "organisation_id" in message.fields_by_name:
            mine["organisation_id"] = str(own.organisation_id)
        strange = await contract.call(name, own.key, fields(foreign_things) | mine)
        absent = await contract.call(name, own.key, fields(unknown) | mine)
        assert strange.without(foreign_things) == absent.without(unknown), name
