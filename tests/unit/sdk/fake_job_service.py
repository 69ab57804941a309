"""A JobService whose every answer a test decides, on a real server behind a unix socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceServicer
from taskforge_sdk import Worker

PATIENCE = 10.0
"""Seconds after which something awaited counts as never coming."""

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


async def soon(queue: "asyncio.Queue[T]") -> T:
    """The next of a queue's items."""
    async with asyncio.timeout(PATIENCE):
        return await queue.get()


async def happens(event: asyncio.Event) -> None:
    """Wait for an event."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()


def status(code: int, reason: str, message: str = "refused") -> status_pb2.Status:
    """An error as TaskForge sends it."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(domain="taskforge", reason=reason))
    return status_pb2.Status(code=code, message=message, details=[info])


LEASE_LOST = status(code_pb2.ABORTED, "LEASE_LOST", "the lease is held no longer")
UNAVAILABLE = status(code_pb2.UNAVAILABLE, "DATABASE_UNAVAILABLE", "the database is away")
DRAINING = status(code_pb2.UNAVAILABLE, "SERVER_DRAINING", "the server is leaving")
REVOKED = status(code_pb2.UNAUTHENTICATED, "CREDENTIAL_REVOKED", "the API key was revoked")
REPLACED = status(code_pb2.ABORTED, "STREAM_REPLACED", "a newer stream took its place")


def key_of(context: Context) -> str:
    """The API key that a call was sent with; empty where there is none."""
    sent = dict(context.invocation_metadata() or ())
    return str(sent.get("authorization", "")).removeprefix("Bearer ")


async def abort(context: Context, error: status_pb2.Status) -> None:
    """End a call with an error and its details."""
    code = next(each for each in grpc.StatusCode if each.value[0] == error.code)
    metadata = (("grpc-status-details-bin", error.SerializeToString()),)
    await context.abort(code, error.message, metadata)


def lease(
    token: str,
    payload: object = None,
    *,
    job_type: str = "work",
    timeout: float | None = None,
    attempt: int = 1,
) -> job_pb2.Lease:
    """A lease; its times lie in 2001, so that only their differences can be right."""
    job = job_pb2.Job(
        id=f"job-of-{token}",
        job_type=job_type,
        payload=json.dumps(payload),
        status=job_pb2.JOB_STATUS_PROCESSING,
        attempt_count=attempt,
        max_attempts=3,
    )
    job.started_at.FromSeconds(1_000_000_000)
    if timeout is not None:
        job.timeout_at.FromNanoseconds(1_000_000_000 * 10**9 + int(timeout * 1e9))
    return job_pb2.Lease(lease_token=token, job=job)


class FakeStream:
    """A call of LeaseJobs, as the server sees it."""

    def __init__(self, request: pb.LeaseJobsRequest, peer: str) -> None:
        self.request = request
        self.peer = peer
        self.closed = asyncio.Event()
        self._outbox: asyncio.Queue[pb.LeaseJobsResponse | status_pb2.Status | None] = (
            asyncio.Queue()
        )

    def send(self, *leases: job_pb2.Lease) -> None:
        self._outbox.put_nowait(pb.LeaseJobsResponse(leases=pb.LeaseBatch(leases=leases)))

    def send_cancel(self, *tokens: str) -> None:
        self._outbox.put_nowait(pb.LeaseJobsResponse(cancel=pb.CancelNotice(lease_tokens=tokens)))

    def send_lost(self, *tokens: str) -> None:
        self._outbox.put_nowait(pb.LeaseJobsResponse(lost=pb.LostNotice(lease_tokens=tokens)))

    def send_drain(self) -> None:
        self._outbox.put_nowait(pb.LeaseJobsResponse(drain=pb.DrainNotice()))

    def send_unknown_event(self) -> None:
        self._outbox.put_nowait(pb.LeaseJobsResponse())

    def end(self, error: status_pb2.Status | None = None) -> None:
        """End the stream, as a broken one ends where there is an error."""
        self._outbox.put_nowait(error)

    async def serve(self, context: Context) -> AsyncIterator[pb.LeaseJobsResponse]:
        try:
            while (item := await self._outbox.get()) is not None:
                if isinstance(item, status_pb2.Status):
                    await abort(context, item)
                    return
                yield item
        finally:
            self.closed.set()


Working: TypeAlias = Callable[[Worker], AbstractAsyncContextManager[FakeStream]]
"""Runs a worker, and gives its first stream."""

Answer: TypeAlias = pb.BatchSettleJobsResponse | status_pb2.Status


def succeed(request: pb.BatchSettleJobsRequest) -> Answer:
    """Every settlement is done."""
    return answer(*[None] * len(request.settlements))


def answer(*errors: status_pb2.Status | None) -> pb.BatchSettleJobsResponse:
    """One result a settlement: done, or an error."""
    return pb.BatchSettleJobsResponse(
        results=[
            pb.SettlementResult(status=job_pb2.JOB_STATUS_SUCCEEDED)
            if error is None
            else pb.SettlementResult(error=error)
            for error in errors
        ]
    )


class FakeJobService(JobServiceServicer):
    """Streams, heartbeats and settle calls, each to be taken from a queue as it comes.

    `on_settle`: the answers to the next settle calls, each a function of the request; when there is
    none left, every settlement is done. `settling_allowed`: while it is cleared, settle calls wait.
    `verdicts`: what heartbeats say of a token; default HELD. `heartbeat_errors`: how the next
    heartbeats fail. `revoked_keys`: whose calls are refused; `keys`: by RPC, the key of the last
    call. `tcp_address`: where it serves as well, each connection with a peer of its own.
    """

    def __init__(self) -> None:
        self.tcp_address = ""
        self.streams: asyncio.Queue[FakeStream] = asyncio.Queue()
        self.heartbeats: asyncio.Queue[pb.HeartbeatRequest] = asyncio.Queue()
        self.settle_calls: asyncio.Queue[pb.BatchSettleJobsRequest] = asyncio.Queue()
        self.settlements: asyncio.Queue[pb.Settlement] = asyncio.Queue()
        self.on_settle: list[Callable[[pb.BatchSettleJobsRequest], Answer]] = []
        self.settling_allowed = asyncio.Event()
        self.settling_allowed.set()
        self.settles_in_flight = 0
        self.most_settles_in_flight = 0
        self.verdicts: dict[str, pb.LeaseVerdict.Verdict.ValueType] = {}
        self.heartbeat_errors: list[status_pb2.Status] = []
        self.says_reconnect = False
        self.revoked_keys: set[str] = set()
        self.keys: dict[str, str] = {}

    async def _authenticate(self, rpc: str, context: Context) -> None:
        self.keys[rpc] = key_of(context)
        if self.keys[rpc] in self.revoked_keys:
            await abort(context, REVOKED)

    async def LeaseJobs(
        self, request: pb.LeaseJobsRequest, context: Context
    ) -> AsyncIterator[pb.LeaseJobsResponse]:
        await self._authenticate("LeaseJobs", context)
        stream = FakeStream(request, context.peer())
        self.streams.put_nowait(stream)
        async for message in stream.serve(context):
            yield message

    async def Heartbeat(
        self, request: pb.HeartbeatRequest, context: Context
    ) -> pb.HeartbeatResponse:
        await self._authenticate("Heartbeat", context)
        self.heartbeats.put_nowait(request)
        if self.heartbeat_errors:
            await abort(context, self.heartbeat_errors.pop(0))
        held = pb.LeaseVerdict.VERDICT_HELD
        return pb.HeartbeatResponse(
            verdicts=[
                pb.LeaseVerdict(
                    lease_token=each.lease_token, verdict=self.verdicts.get(each.lease_token, held)
                )
                for each in request.held
            ],
            reconnect=self.says_reconnect,
        )

    async def BatchSettleJobs(
        self, request: pb.BatchSettleJobsRequest, context: Context
    ) -> pb.BatchSettleJobsResponse:
        self.settles_in_flight += 1
        self.most_settles_in_flight = max(self.most_settles_in_flight, self.settles_in_flight)
        try:
            await self._authenticate("BatchSettleJobs", context)
            self.settle_calls.put_nowait(request)
            await self.settling_allowed.wait()
            decide = self.on_settle.pop(0) if self.on_settle else succeed
            decided = decide(request)
            if isinstance(decided, status_pb2.Status):
                await abort(context, decided)
                return pb.BatchSettleJobsResponse()
            for settlement, result in zip(request.settlements, decided.results, strict=False):
                if not result.HasField("error"):
                    self.settlements.put_nowait(settlement)
            return decided
        finally:
            self.settles_in_flight -= 1

    async def heartbeat_listing(self, *tokens: str) -> pb.HeartbeatRequest:
        """The next heartbeat that lists exactly these leases."""
        while True:
            heartbeat = await soon(self.heartbeats)
            if {each.lease_token for each in heartbeat.held} == set(tokens):
                return heartbeat
