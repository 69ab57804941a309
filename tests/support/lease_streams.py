"""LeaseJobs streams that tests open, and what came on them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from tests.support.stubs import JobStub
from tests.support.waiting import eventually

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb


class LeaseStream:
    """A stream that is read as fast as its messages come."""

    def __init__(self, stub: JobStub, request: pb.LeaseJobsRequest) -> None:
        """Open it; see `lease_stream`."""
        self.session_id = request.session_id
        self.batches: list[list[job_pb2.Lease]] = []
        """The leases of each message."""
        self.cancelled: list[str] = []
        """Tokens, as told by `cancel`."""
        self.lost: list[str] = []
        """Tokens, as told by `lost`."""
        self.drains = 0
        """How many `drain` messages came."""
        self._call = stub.LeaseJobs(request)
        self._reading = asyncio.create_task(self._read(), name="read leases")

    @property
    def has_ended(self) -> bool:
        """Whether the server has ended it."""
        return self._reading.done()

    @property
    def leases(self) -> list[job_pb2.Lease]:
        """All leases, in the order in which they came."""
        return [lease for batch in self.batches for lease in batch]

    @property
    def tokens(self) -> list[str]:
        """Their tokens."""
        return [lease.lease_token for lease in self.leases]

    @property
    def payloads(self) -> list[str]:
        """Their jobs' payloads."""
        return [lease.job.payload for lease in self.leases]

    async def until(self, condition: Callable[["LeaseStream"], bool], what: str) -> None:
        """Return as soon as the condition holds; a stream that has ended is an error."""

        async def holds() -> bool:
            if condition(self):
                return True
            if self._reading.done():
                await self._reading
                raise AssertionError(f"the stream ended before {what}")
            return False

        await eventually(holds, what)

    async def until_leases(self, count: int) -> Sequence[job_pb2.Lease]:
        """The leases, when at least so many have come."""
        await self.until(lambda stream: len(stream.leases) >= count, f"{count} leases came")
        return self.leases

    async def end(self) -> None:
        """Wait until the server ends the stream; raises what it was ended with."""
        await asyncio.wait_for(asyncio.shield(self._reading), timeout=20)

    async def close(self) -> None:
        """End it from the client's side, as a worker does that goes away."""
        self._call.cancel()
        await asyncio.wait([self._reading])

    async def _read(self) -> None:
        async for message in self._call:
            self._take(message)

    def _take(self, message: pb.LeaseJobsResponse) -> None:
        match message.WhichOneof("event"):
            case "leases":
                self.batches.append(list(message.leases.leases))
            case "cancel":
                self.cancelled += message.cancel.lease_tokens
            case "lost":
                self.lost += message.lost.lease_tokens
            case "drain":
                self.drains += 1
            case other:
                assert other == "keepalive", other


async def until_total(count: int, *streams: LeaseStream) -> None:
    """Return when at least so many leases have come on these streams together."""

    async def have_come() -> bool:
        return sum(len(stream.leases) for stream in streams) >= count

    await eventually(have_come, f"{count} leases came on {len(streams)} streams")


@asynccontextmanager
async def lease_stream(
    stub: JobStub, session_id: str | None = None, *, max_in_flight: int = 100, **fields: Any
) -> AsyncIterator[LeaseStream]:
    """An open stream of a session (default: a new one); closed in the end.

    `fields` are those of `LeaseJobsRequest`.
    """
    stream = LeaseStream(
        stub,
        pb.LeaseJobsRequest(
            session_id=session_id or str(uuid4()), max_in_flight=max_in_flight, **fields
        ),
    )
    try:
        yield stream
    finally:
        await stream.close()
