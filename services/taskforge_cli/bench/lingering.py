"""Lease streams on which nothing comes: what it costs to have many workers that wait."""

import asyncio
import itertools
import random
import uuid
from typing import TYPE_CHECKING

import grpc

from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_cli.bench.caller import Caller
from taskforge_cli.bench.orders import JOB_TYPE, Linger, Outcome
from taskforge_sdk.channels import open_channel
from taskforge_sdk.credentials import Credential, Metadata
from taskforge_sdk.errors import from_rpc_error
from taskforge_sdk.tls import Security

if TYPE_CHECKING:
    from taskforge.v1.job_service_pb2_grpc import JobServiceAsyncStub

_STREAMS_A_CONNECTION = 50
_BEAT_SECONDS = 10.0
_LEASE_SECONDS = 30


async def linger(order: Linger, caller: Caller) -> Outcome:
    """Open the streams and keep them until told to stop."""
    credentials = Security(caller.tls).credentials
    count = -(-order.streams // _STREAMS_A_CONNECTION)
    addresses = list(itertools.islice(itertools.cycle(order.addresses), count))
    channels = [open_channel(each, credentials, own_connection=True) for each in addresses]
    tasks: list[asyncio.Task[None]] = []
    try:
        stubs = [
            (JobServiceStub(channel), await Credential(caller.key_for(address)).metadata_apart())
            for address, channel in zip(addresses, channels, strict=True)
        ]
        for number in range(order.streams):
            stub, metadata = stubs[number % count]
            session_id = str(uuid.uuid4())
            tasks.append(asyncio.create_task(_keep_open(stub, metadata, order, session_id, caller)))
            if order.beats:
                tasks.append(asyncio.create_task(_beat(stub, metadata, session_id)))
        stopping = asyncio.create_task(caller.stop.wait())
        ended, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in ended - {stopping}:
            await task
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in channels:
            await channel.close(None)
    return Outcome(jobs=caller.done)


async def _keep_open(
    stub: "JobServiceAsyncStub", metadata: Metadata, order: Linger, session_id: str, caller: Caller
) -> None:
    request = pb.LeaseJobsRequest(
        queues=order.queues,
        job_types=[JOB_TYPE],
        session_id=session_id,
        worker_id="bench",
        max_in_flight=1,
    )
    request.lease_duration.seconds = _LEASE_SECONDS
    caller.done += 1
    async for _ in stub.LeaseJobs(request, metadata=metadata):
        pass
    raise ValueError("a lease stream has ended by itself")


async def _beat(stub: "JobServiceAsyncStub", metadata: Metadata, session_id: str) -> None:
    await asyncio.sleep(_BEAT_SECONDS * random.random())
    for sequence in itertools.count(1):
        await stub.Heartbeat(
            pb.HeartbeatRequest(session_id=session_id, sequence=sequence), metadata=metadata
        )
        await asyncio.sleep(_BEAT_SECONDS)
