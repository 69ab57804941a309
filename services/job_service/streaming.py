"""LeaseJobs: sends a call's leases and notices for as long as its stream is open."""

import asyncio
from typing import Any

import grpc
import structlog

from job_service.calling import Calls, server_draining, stream_replaced
from job_service.demanding import Demand, Leased
from job_service.parcelling import fits, parcels
from job_service.returning import Returner
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.retrying import Undelivered

log = structlog.get_logger(__name__)

KEEPALIVE_SECONDS = 15.0
"""A stream is never silent for longer, so that a client can tell a quiet queue from a dead peer."""

WRITE_SECONDS = 10.0
"""A client that takes nothing for this long is gone."""

Context = grpc.aio.ServicerContext[Any, Any]


class _ClientGone(Exception):
    """The stream cannot be written to any more."""


class Streamer:
    """Serves LeaseJobs."""

    def __init__(self, calls: Calls, returner: Returner) -> None:
        self._calls = calls
        self._returner = returner

    async def stream(self, request: pb.LeaseJobsRequest, context: Context) -> None:
        """Serve one stream until it ends.

        Raises:
            TaskForgeError: As the contract says of LeaseJobs.
        """
        demand, _ = await self._calls.open(request)
        try:
            await self._serve(demand, context)
        except _ClientGone:
            if demand.is_replaced:
                raise stream_replaced(demand) from None
            log.info("stream_broken", session=str(demand.session_id), worker=demand.worker_id)
        finally:
            self._calls.close(demand)

    async def _serve(self, demand: Demand, context: Context) -> None:
        while True:
            demand.changed.clear()
            if demand.is_replaced:
                raise stream_replaced(demand)
            if demand.is_draining:
                await _write(demand, context, pb.LeaseJobsResponse(drain=pb.DrainNotice()))
                raise server_draining()
            await self._send_leases(demand, context)
            await _send_notices(demand, context)
            try:
                async with asyncio.timeout(KEEPALIVE_SECONDS):
                    await demand.changed.wait()
            except TimeoutError:
                await _write(demand, context, pb.LeaseJobsResponse(keepalive=pb.Keepalive()))

    async def _send_leases(self, demand: Demand, context: Context) -> None:
        leases, demand.outbox = demand.outbox, []
        sent = 0
        try:
            for parcel in parcels(leases, demand.max_message_bytes):
                if fits(parcel, demand.max_message_bytes):
                    batch = pb.LeaseBatch(leases=[leased.message for leased in parcel])
                    await _write(demand, context, pb.LeaseJobsResponse(leases=batch))
                else:
                    demand.refuse(parcel)
                sent += len(parcel)
        except BaseException:
            # Also of the message that failed: whether it arrived nobody knows, and the fence
            # protects the job if it did.
            self._give_back(demand, leases[sent:])
            raise

    def _give_back(self, demand: Demand, leases: list[Leased]) -> None:
        self._returner.give_back(demand.project_id, leases, Undelivered())


async def _send_notices(demand: Demand, context: Context) -> None:
    if demand.cancelled:
        tokens, demand.cancelled = demand.cancelled, set()
        notice = pb.CancelNotice(lease_tokens=sorted(tokens))
        await _write(demand, context, pb.LeaseJobsResponse(cancel=notice))
    if demand.lost:
        tokens, demand.lost = demand.lost, set()
        lost = pb.LostNotice(lease_tokens=sorted(tokens))
        await _write(demand, context, pb.LeaseJobsResponse(lost=lost))


async def _write(demand: Demand, context: Context, message: pb.LeaseJobsResponse) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS) as demand.write_limit:
            await context.write(message)
    except (TimeoutError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError):
        raise _ClientGone from None
    finally:
        demand.write_limit = None
