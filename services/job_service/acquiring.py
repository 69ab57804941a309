"""AcquireJobs: leases jobs once, for clients that cannot hold a stream."""

import asyncio
from functools import partial
from typing import Any

import grpc

from job_service.calling import Calls, server_draining, stream_replaced
from job_service.demanding import Demand, Leased
from job_service.parcelling import parcels
from job_service.returning import Returner
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.retrying import Undelivered

Context = grpc.aio.ServicerContext[Any, Any]

LOOK_EVERY_SECONDS = 1.0
"""How often a waiting call whose session is full looks whether it still is."""


class Acquirer:
    """Serves AcquireJobs."""

    def __init__(self, calls: Calls, returner: Returner) -> None:
        self._calls = calls
        self._returner = returner

    async def acquire(
        self, request: pb.AcquireJobsRequest, context: Context
    ) -> pb.AcquireJobsResponse:
        """Lease what is there, or wait for a first job.

        Raises:
            TaskForgeError: As the contract says of AcquireJobs.
        """
        demand, group = await self._calls.open(request)
        try:
            # A pass of our own, so that "answer at once" looks at the queues before it answers.
            await group.look()
            await self._first_job(demand, request.wait.ToTimedelta().total_seconds())
            taken = _fitting(demand)
            # The stubs want an instance of a class that exists in them alone.
            context.add_done_callback(partial(self._sent, demand, taken))  # type: ignore[arg-type]
            return pb.AcquireJobsResponse(leases=[leased.message for leased in taken])
        finally:
            self._calls.close(demand)

    def _sent(self, demand: Demand, taken: list[Leased], context: Context) -> None:
        """The call is over; a client that left before its answer was sent has none of the leases.

        gRPC counts such a call as not done; `cancelled` tells of the server's own cancelling only.
        """
        if not context.done():
            self._returner.give_back(demand.project_id, taken, Undelivered())

    async def _first_job(self, demand: Demand, wait_seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while not demand.outbox:
            demand.changed.clear()
            if demand.is_replaced:
                raise stream_replaced(demand)
            if demand.is_draining:
                raise server_draining()
            now = asyncio.get_running_loop().time()
            if now >= deadline:
                return
            try:
                async with asyncio.timeout_at(min(deadline, now + LOOK_EVERY_SECONDS)):
                    await demand.changed.wait()
            except TimeoutError:
                # Nobody tells when a lease without a stream is settled on another replica.
                if demand.credit == 0:
                    await self._calls.refresh(demand)


def _fitting(demand: Demand) -> list[Leased]:
    """Take out of the outbox what one answer can hold; closing the call gives back the rest."""
    return demand.take(len(next(parcels(demand.outbox, demand.max_message_bytes), [])))
