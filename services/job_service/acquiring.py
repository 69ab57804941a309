"""AcquireJobs: leases jobs once, for clients that cannot hold a stream."""

import asyncio

from job_service.calling import Calls, server_draining, stream_replaced
from job_service.demanding import Demand, Leased
from job_service.parcelling import fits, parcels
from taskforge.v1 import job_service_pb2 as pb


class Acquirer:
    """Serves AcquireJobs."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def acquire(self, request: pb.AcquireJobsRequest) -> pb.AcquireJobsResponse:
        """Lease what is there, or wait for a first job.

        Raises:
            TaskForgeError: As the contract says of AcquireJobs.
        """
        demand, group = await self._calls.open(request)
        deadline = asyncio.get_running_loop().time() + request.wait.ToTimedelta().total_seconds()
        try:
            while True:
                # A pass of our own, so that "answer at once" looks at the queues before it answers.
                await group.run_once()
                await _first_job(demand, deadline)
                taken = _fitting(demand)
                if taken or not demand.outbox:
                    return pb.AcquireJobsResponse(leases=[leased.message for leased in taken])
                # All of it is too large for this client: others may take it, and we what is behind.
                await self._calls.refuse_outbox(demand)
        finally:
            self._calls.close(demand)


async def _first_job(demand: Demand, deadline: float) -> None:
    while not demand.outbox:
        demand.changed.clear()
        if demand.is_replaced:
            raise stream_replaced(demand)
        if demand.is_draining:
            raise server_draining()
        try:
            async with asyncio.timeout_at(deadline):
                await demand.changed.wait()
        except TimeoutError:
            return


def _fitting(demand: Demand) -> list[Leased]:
    """Take out of the outbox what one answer can hold; closing the call gives back the rest."""
    limit = demand.max_message_bytes
    taken = next((parcel for parcel in parcels(demand.outbox, limit) if fits(parcel, limit)), [])
    answered = {leased.lease_seq for leased in taken}
    demand.outbox = [leased for leased in demand.outbox if leased.lease_seq not in answered]
    return taken
