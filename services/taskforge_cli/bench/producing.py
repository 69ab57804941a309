"""The producers: callers that create jobs."""

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_cli.bench.caller import Caller
from taskforge_cli.bench.orders import JOB_TYPE, Outcome, Pace, Produce
from taskforge_sdk import Client, JsonText, NewJob
from taskforge_sdk.channels import open_channel
from taskforge_sdk.credentials import Credential, Metadata
from taskforge_sdk.errors import from_status
from taskforge_sdk.tls import Security

if TYPE_CHECKING:
    from taskforge.v1.job_service_pb2_grpc import JobServiceAsyncStub

_TEXT = '{"to":"someone@example.com","template":"welcome","user_id":123456,"note":"%s"}'
_MOST_AT_ONCE = 1_000
"""Paced calls that may be open at once, should the servers not keep up."""


class Creator(Protocol):
    """How jobs are created."""

    async def connect(self) -> None:
        """Make the connection."""

    async def __call__(self, count: int) -> list[str]:
        """Create so many jobs in one call; their ids."""


def payload_of(size: int) -> str:
    """JSON of exactly so many bytes, 2 or more."""
    fill = size - len(_TEXT % "")
    return _TEXT % ("x" * fill) if fill >= 0 else "{" + " " * (size - 2) + "}"


async def produce(order: Produce, caller: Caller) -> Outcome:
    """Create all jobs of the order."""
    outcome = _Record(caller, keep_starts=order.keep_starts)
    left = order.jobs
    batch = order.batch or 1

    async def call_on(create: Creator) -> None:
        nonlocal left
        while left > 0 and not caller.stop.is_set():
            count = min(batch, left)
            left -= count
            await outcome.take(create, count)

    async with _creators(order, caller) as creators:
        for create in creators:
            # The connection, and what the first call alone costs on both sides.
            await create.connect()
        callers = itertools.islice(itertools.cycle(creators), order.callers)
        outcome.begin()
        await asyncio.gather(*(call_on(create) for create in callers))
    return outcome.sum_up()


async def pace(order: Pace, caller: Caller) -> Outcome:
    """Create the jobs at their rate."""
    outcome = _Record(caller, keep_starts=True)
    single = Produce(
        addresses=order.addresses,
        queues=order.queues,
        jobs=order.jobs,
        payload_bytes=order.payload_bytes,
    )
    open_calls: set[asyncio.Task[None]] = set()
    async with _creators(single, caller) as creators:
        for create in creators:
            await create.connect()
        in_turn = itertools.cycle(creators)
        outcome.begin()
        due = time.perf_counter()
        for _ in range(order.jobs):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if caller.stop.is_set():
                break
            if order.evenly:
                await outcome.take(next(in_turn), 1)
                due = max(due + 1 / order.per_second, time.perf_counter())
                continue
            if len(open_calls) < _MOST_AT_ONCE:
                call = asyncio.create_task(outcome.take(next(in_turn), 1))
                open_calls.add(call)
                call.add_done_callback(open_calls.discard)
            due += random.expovariate(order.per_second)
        await asyncio.gather(*open_calls)
    return outcome.sum_up()


class _Record:
    """What calls took, and when."""

    def __init__(self, caller: Caller, *, keep_starts: bool) -> None:
        self._caller = caller
        self._keep_starts = keep_starts
        self._call_ms: list[float] = []
        self._starts: dict[str, int] = {}
        self._first_ns = 0

    def begin(self) -> None:
        """Now."""
        self._first_ns = time.monotonic_ns()

    async def take(self, create: Creator, count: int) -> None:
        """Make a call, and note it."""
        began = time.monotonic_ns()
        ids = await create(count)
        self._call_ms.append((time.monotonic_ns() - began) / 1e6)
        self._caller.done += count
        if self._keep_starts:
            self._starts.update(dict.fromkeys(ids, began))

    def sum_up(self) -> Outcome:
        """All of it, now that the last call has ended."""
        return Outcome(
            jobs=self._caller.done,
            distinct=self._caller.done,
            first_ns=self._first_ns,
            last_ns=time.monotonic_ns(),
            call_ms=self._call_ms,
            starts=self._starts,
        )


class _SdkCreator:
    """Creates jobs by the SDK's client, as users do."""

    def __init__(self, client: Client, order: Produce) -> None:
        self._client = client
        payload = JsonText(payload_of(order.payload_bytes))
        self._jobs = [
            NewJob(queue, JOB_TYPE, payload)
            for queue in itertools.islice(itertools.cycle(order.queues), order.batch or 1)
        ]
        self._single = itertools.cycle([(queue, JOB_TYPE, payload) for queue in order.queues])
        self._is_batch = order.batch > 0

    async def connect(self) -> None:
        await self._client.job_stats()

    async def __call__(self, count: int) -> list[str]:
        if not self._is_batch:
            job = await self._client.create_job(*next(self._single))
            return [job.id]
        created = await self._client.create_jobs(self._jobs[:count])
        for each in created:
            if each.error is not None:
                raise each.error
        return [each.job_id or "" for each in created]


class _StubCreator:
    """Creates jobs by the generated stubs alone: what the client in another language may cost."""

    def __init__(self, stub: "JobServiceAsyncStub", metadata: Metadata, order: Produce) -> None:
        self._stub = stub
        self._metadata = metadata
        payload = payload_of(order.payload_bytes)
        self._specs = [
            job_pb2.JobSpec(queue=queue, job_type=JOB_TYPE, payload=payload)
            for queue in itertools.islice(itertools.cycle(order.queues), order.batch or 1)
        ]
        self._requests = itertools.cycle(
            [
                pb.CreateJobRequest(
                    job=job_pb2.JobSpec(queue=queue, job_type=JOB_TYPE, payload=payload)
                )
                for queue in order.queues
            ]
        )
        self._is_batch = order.batch > 0

    async def connect(self) -> None:
        await self._stub.GetJobStats(pb.GetJobStatsRequest(), metadata=self._metadata)

    async def __call__(self, count: int) -> list[str]:
        if not self._is_batch:
            created = await self._stub.CreateJob(next(self._requests), metadata=self._metadata)
            return [created.job.id]
        answer = await self._stub.BatchCreateJobs(
            pb.BatchCreateJobsRequest(jobs=self._specs[:count], request_id=uuid.uuid4().hex),
            metadata=self._metadata,
        )
        for each in answer.results:
            if each.HasField("error"):
                raise from_status(each.error)
        return [each.job_id for each in answer.results]


@asynccontextmanager
async def _creators(order: Produce, caller: Caller) -> AsyncIterator[Sequence[Creator]]:
    """One for each address."""
    if not order.by_stubs:
        clients = [
            Client(job_address=address, api_key=caller.key_for(address), tls=caller.tls)
            for address in order.addresses
        ]
        try:
            yield [_SdkCreator(client, order) for client in clients]
        finally:
            for client in clients:
                await client.close()
        return
    credentials = Security(caller.tls).credentials
    channels = [open_channel(address, credentials) for address in order.addresses]
    try:
        creators = []
        for address, channel in zip(order.addresses, channels, strict=True):
            metadata = await Credential(caller.key_for(address)).metadata_apart()
            creators.append(_StubCreator(JobServiceStub(channel), metadata, order))
        yield creators
    finally:
        for channel in channels:
            await channel.close(None)
