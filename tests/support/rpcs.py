"""Every RPC of the contract, found in the descriptors, and calls of any of them by its name."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

from taskforge.v1 import admin_service_pb2, job_service_pb2, queue_service_pb2
from taskforge_core.database import Database
from taskforge_core.settings import Settings

FILES = (admin_service_pb2, job_service_pb2, queue_service_pb2)
SERVICES: list[ServiceDescriptor] = [
    service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS: dict[str, MethodDescriptor] = {
    method.name: method for service in SERVICES for method in service.methods
}

WAITING = {"LeaseJobs", "AcquireJobs"}
"""They wait for jobs where there are none."""

SHORT_WAIT = 0.1
"""Seconds after which a call that waits for jobs counts as taken."""

LARGEST_MESSAGE = 4 * 1024 * 1024
"""`max_message_bytes`, as it is unless set."""

_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_RANDOM = re.compile(r"(queue-|empty-|made-|named-)[0-9a-f-]{32,}|tfk_\w+|(seconds|nanos): \d+")


def message(name: str, /, **fields: Any) -> Message:
    """The request of an RPC with these fields."""
    return GetMessageClass(METHODS[name].input_type)(**fields)


@dataclass(frozen=True)
class Answer:
    """What a call was answered with; where items have a status each, the first refusal."""

    code: StatusCode
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    message: str = ""
    violations: frozenset[str] = frozenset()
    """The paths of the fields that are wrong."""
    told: str = ""
    """All of it: the response, or the status with its details."""
    was_carried_out: bool = False
    """At least in part."""

    def without(self, values: Iterable[str]) -> tuple[StatusCode, str]:
        """What is left to compare when these values, ids, random names and times are taken out."""
        told = self.told
        for value in values:
            told = told.replace(value, "<it>")
        return self.code, _RANDOM.sub("<random>", _UUID.sub("<id>", told))


class Contract:
    """Calls any RPC by its name."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._channels = {
            service: grpc.aio.insecure_channel(address) for service, address in addresses.items()
        }

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close(None)

    async def send(
        self, name: str, metadata: Any, request: Message | bytes, *, patience: float = SHORT_WAIT
    ) -> Answer:
        """The answer to a request, which may be no message at all."""
        try:
            response = await self.raw(name, metadata, request, patience=patience)
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)  # type: ignore[arg-type]
            # gRPC itself refuses what is above its limits, without our details.
            bare = Answer(error.code(), told=error.details() or "")
            return bare if status is None else _refused(status)
        sent: Any = message(name)
        sent.ParseFromString(_serialised(request))
        # What became of a call that has an id of its own is remembered, be it carried out or not.
        return _answered(response, is_remembered=bool(getattr(sent, "request_id", "")))

    async def raw(
        self, name: str, metadata: Any, request: Message | bytes, *, patience: float = SHORT_WAIT
    ) -> Any:
        """The response of a call, or the first of a stream; raises what gRPC raises.

        Args:
            name: Of the RPC.
            metadata: Its credentials, among others.
            request: What is sent, be it a message or not.
            patience: For how long to wait for jobs; None is returned where none came.
        """
        method = METHODS[name]
        service = method.containing_service
        channel = self._channels[service.name]
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        rpc: Any = make(
            f"/{service.full_name}/{name}",
            request_serializer=_serialised,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        call = rpc(request, metadata=metadata, timeout=30)
        response: Awaitable[Message] = call.read() if method.server_streaming else call
        try:
            if name not in WAITING:
                return await response
            async with asyncio.timeout(patience):
                return await response
        except TimeoutError:
            return None
        finally:
            call.cancel()


def _serialised(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _answered(response: Any, *, is_remembered: bool) -> Answer:
    results = list(getattr(response, "results", ()))
    errors = [result.error for result in results if result.HasField("error")]
    was_carried_out = is_remembered or not results or len(errors) < len(results)
    if errors:
        return _refused(errors[0], str(response), was_carried_out=was_carried_out)
    return Answer(StatusCode.OK, told=str(response), was_carried_out=was_carried_out)


def _refused(status: status_pb2.Status, told: str = "", *, was_carried_out: bool = False) -> Answer:
    refusal = read_refusal(status)
    [code] = [each for each in StatusCode if each.value[0] == refusal.code]
    return Answer(
        code,
        refusal.info.reason,
        refusal.metadata,
        refusal.message,
        frozenset(refusal.field_violations),
        told or str(status),
        was_carried_out,
    )


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
