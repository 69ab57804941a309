"""Calls of JobService that many tests make."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from tests.support.stubs import JobStub

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb

Lease = job_pb2.Lease

HELD = pb.LeaseVerdict.VERDICT_HELD
CANCEL_REQUESTED = pb.LeaseVerdict.VERDICT_CANCEL_REQUESTED
LOST = pb.LeaseVerdict.VERDICT_LOST

NO_JSON = (
    "{",
    " ",
    "{'a': 1}",
    "[1,]",
    "NaN",
    '{"n": Infinity}',
    "-Infinity",
    "01",
    "1 2",
    '"\\ud800"',
    '"a\nb"',
    "\0",
    "[" * 101 + "]" * 101,
    '{"a":' * 101 + "1" + "}" * 101,
    "[" * 5_000,
)
"""Texts that are no JSON document, or one that is nested too deep."""


def spec(queue: str = "emails", **fields: Any) -> job_pb2.JobSpec:
    """A job for that queue; of the type `send` unless told otherwise."""
    return job_pb2.JobSpec(queue=queue, **{"job_type": "send"} | fields)


async def create(stub: JobStub, queue: str = "emails", **fields: Any) -> job_pb2.Job:
    """Create a job; `fields` are those of `JobSpec`."""
    return (await stub.CreateJob(pb.CreateJobRequest(job=spec(queue, **fields)))).job


async def create_all(stub: JobStub, jobs: Iterable[job_pb2.JobSpec], **fields: Any) -> list[str]:
    """Create jobs in one batch; their ids. `fields` are those of `BatchCreateJobsRequest`."""
    answer = await stub.BatchCreateJobs(pb.BatchCreateJobsRequest(jobs=jobs, **fields))
    assert all(result.job_id for result in answer.results), answer
    return [result.job_id for result in answer.results]


async def get(stub: JobStub, job_id: str) -> job_pb2.Job:
    return (await stub.GetJob(pb.GetJobRequest(job_id=job_id))).job


async def acquire(
    stub: JobStub, session_id: str | None = None, *, max_in_flight: int = 100, **fields: Any
) -> list[Lease]:
    """Lease what is there to a session (default: a new one); `fields` are those of the request."""
    request = pb.AcquireJobsRequest(
        session_id=session_id or str(uuid4()), max_in_flight=max_in_flight, **fields
    )
    return list((await stub.AcquireJobs(request)).leases)


async def acquire_one(stub: JobStub, session_id: str | None = None, **fields: Any) -> Lease:
    """Lease the best job, which must be there, and no other of the session before it."""
    [lease] = await acquire(stub, session_id, max_in_flight=1, **fields)
    return lease


async def heartbeat(
    stub: JobStub,
    session_id: str,
    sequence: int,
    held: Iterable[str | pb.HeldLease] = (),
    **fields: Any,
) -> pb.HeartbeatResponse:
    """Send a heartbeat that lists these tokens, or leases with their progress."""
    listed = [
        lease if isinstance(lease, pb.HeldLease) else pb.HeldLease(lease_token=lease)
        for lease in held
    ]
    return await stub.Heartbeat(
        pb.HeartbeatRequest(session_id=session_id, sequence=sequence, held=listed, **fields)
    )


def verdicts(answer: pb.HeartbeatResponse) -> list[pb.LeaseVerdict.Verdict.ValueType]:
    return [verdict.verdict for verdict in answer.verdicts]


async def complete(stub: JobStub, token: str, result: str = "") -> job_pb2.JobStatus.ValueType:
    answer = await stub.CompleteJob(pb.CompleteJobRequest(lease_token=token, result=result))
    return answer.status


async def fail(stub: JobStub, token: str, **failure: Any) -> job_pb2.JobStatus.ValueType:
    """Report a failure; `failure` are the fields of `Failure`."""
    answer = await stub.FailJob(pb.FailJobRequest(lease_token=token, failure=pb.Failure(**failure)))
    return answer.status


async def release(stub: JobStub, token: str) -> job_pb2.JobStatus.ValueType:
    return (await stub.ReleaseJob(pb.ReleaseJobRequest(lease_token=token))).status


async def settle(
    stub: JobStub, settlements: Iterable[pb.Settlement]
) -> Sequence[pb.SettlementResult]:
    request = pb.BatchSettleJobsRequest(settlements=settlements)
    return (await stub.BatchSettleJobs(request)).results


def succeeded(token: str, result: str = "") -> pb.Settlement:
    return pb.Settlement(lease_token=token, success=pb.Success(result=result))


def failed(token: str, **failure: Any) -> pb.Settlement:
    return pb.Settlement(lease_token=token, failure=pb.Failure(**failure))


def released(token: str) -> pb.Settlement:
    return pb.Settlement(lease_token=token, release=pb.Release())


def snoozed(token: str, delay: Duration | None = None) -> pb.Settlement:
    return pb.Settlement(lease_token=token, snooze=pb.Snooze(delay=delay))


async def cancel(stub: JobStub, job_id: str, *, interrupt_running: bool = False) -> job_pb2.Job:
    request = pb.CancelJobRequest(job_id=job_id, interrupt_running=interrupt_running)
    return (await stub.CancelJob(request)).job


async def retry(stub: JobStub, job_id: str, additional_attempts: int = 0) -> job_pb2.Job:
    request = pb.RetryJobRequest(job_id=job_id, additional_attempts=additional_attempts)
    return (await stub.RetryJob(request)).job


async def invoke(stub: JobStub, request: Message) -> Any:
    """Make the call that takes this request; of a stream only its end is waited for."""
    name = type(request).__name__.removesuffix("Request")
    call = getattr(stub, name)(request)
    if name != "LeaseJobs":
        return await call
    async for _ in call:
        pass
    return None


def duration(**parts: float) -> Duration:
    """A duration; `parts` are those of `timedelta`."""
    message = Duration()
    message.FromTimedelta(timedelta(**parts))
    return message


def span(earlier: Timestamp, later: Timestamp) -> timedelta:
    """From one moment to the other."""
    return later.ToDatetime() - earlier.ToDatetime()


def payloads(leases: Iterable[Lease]) -> list[str]:
    """The payloads of the leased jobs, by which tests tell jobs apart."""
    return [lease.job.payload for lease in leases]
