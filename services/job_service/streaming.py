"""LeaseJobs: sends a call's leases and notices for as long as its stream is open."""

import asyncio
from typing import Any

import grpc
import structlog

from job_service.calling import Calls, server_draining, stream_replaced
from job_service.demanding import Demand
from job_service.parcelling import parcels
from job_service.returning import Returner
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.retrying import Undelivered

log = structlog.get_logger(__name__)

KEEPALIVE_SECONDS = 15.0
"""A stream is never silent for longer, so that a client can tell a quiet queue from a dead peer."""

REFRESH_SECONDS = 15.0
"""A stream is compared with its session's rows so often, however busy it is: notifications can be
lost, and heartbeats reach whichever replica they are sent to."""

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
            await _Stream(demand, context, self._calls, self._returner).serve()
        except _ClientGone:
            if demand.is_replaced:
                raise stream_replaced(demand) from None
            log.info("stream_broken", session=str(demand.session_id), worker=demand.worker_id)
        finally:
            self._calls.close(demand)


class _Stream:
    """One open stream. It has one message in the making at a time; all else waits in the call."""

    def __init__(self, demand: Demand, context: Context, calls: Calls, returner: Returner) -> None:
        self._demand = demand
        self._context = context
        self._calls = calls
        self._returner = returner
        self._clock = asyncio.get_running_loop().time
        self._wrote_at = self._refreshed_at = self._clock()

    async def serve(self) -> None:
        demand = self._demand
        while True:
            demand.changed.clear()
            if demand.is_replaced:
                raise stream_replaced(demand)
            if demand.is_draining:
                await self._write(pb.LeaseJobsResponse(drain=pb.DrainNotice()))
                raise server_draining()
            if self._clock() >= self._refreshed_at + REFRESH_SECONDS:
                await self._calls.refresh(demand)
                self._refreshed_at = self._clock()
            # What is lost makes room for new leases, so it is told before them.
            await self._send_lost()
            await self._send_leases()
            await self._send_cancelled()
            if not demand.outbox:
                await self._wait()

    async def _wait(self) -> None:
        silent_until = self._wrote_at + KEEPALIVE_SECONDS
        try:
            async with asyncio.timeout_at(min(silent_until, self._refreshed_at + REFRESH_SECONDS)):
                await self._demand.changed.wait()
        except TimeoutError:
            if self._clock() >= silent_until:
                await self._write(pb.LeaseJobsResponse(keepalive=pb.Keepalive()))

    async def _send_leases(self) -> None:
        """Send one message of leases, if there are any."""
        demand = self._demand
        parcel = demand.take(len(next(parcels(demand.outbox, demand.max_message_bytes), [])))
        if not parcel:
            return
        message = pb.LeaseJobsResponse()
        message.leases.leases.extend([leased.message for leased in parcel])
        try:
            await self._write(message)
        except BaseException:
            # Whether it arrived nobody knows; the fence protects its jobs if it did. What stands
            # behind it was never sent, and is given back when the call is closed.
            self._returner.give_back(demand.project_id, parcel, Undelivered())
            raise
        was_congested = demand.is_congested
        demand.sent(parcel)
        if was_congested:
            self._calls.wake_for(demand)

    async def _send_lost(self) -> None:
        demand = self._demand
        if demand.lost:
            tokens, demand.lost = demand.lost, set()
            lost = pb.LostNotice(lease_tokens=sorted(tokens))
            await self._write(pb.LeaseJobsResponse(lost=lost))

    async def _send_cancelled(self) -> None:
        tokens = self._demand.take_cancelled()
        if tokens:
            notice = pb.CancelNotice(lease_tokens=sorted(tokens))
            await self._write(pb.LeaseJobsResponse(cancel=notice))

    async def _write(self, message: pb.LeaseJobsResponse) -> None:
        demand = self._demand
        try:
            async with asyncio.timeout(WRITE_SECONDS) as demand.write_limit:
                await self._context.write(message)
        except (
            TimeoutError,
            grpc.aio.UsageError,
            grpc.aio.InternalError,
            asyncio.InvalidStateError,
        ):
            raise _ClientGone from None
        finally:
            demand.write_limit = None
        self._wrote_at = self._clock()
