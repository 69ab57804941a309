"""The limits of every field of every call: what lies beyond is refused, and changes nothing."""

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from tests.support.job_calls import (
    invoke,
    spec,
)
from tests.support.job_replicas import JobReplica
from tests.support.refusals import expect_error
from tests.support.rows import insert_queue
from tests.support.snapshots import unchanged
from tests.support.stubs import JobStub

from taskforge.v1 import job_pb2, job_service_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database

LATEST = 253_402_300_799
"""The last second of the year 9999."""
WEEK = 604_800
ID = str(uuid4())
TOKEN = "t" * 128
NO_UUIDS = ("", "emails", ID[:-1], ID + "0", ID.replace("-", ""), "{" + ID + "}", ID[:-1] + "\0")
BAD_TIMES = (
    Timestamp(seconds=-1),
    Timestamp(seconds=LATEST + 1),
    Timestamp(seconds=2**63 - 1),
    Timestamp(seconds=-(2**63)),
)
NO_TIMES = (Timestamp(seconds=1, nanos=-1), Timestamp(seconds=1, nanos=10**9))
"""Nanoseconds that are none."""
BAD_LABELS: tuple[tuple[dict[str, str], str], ...] = (
    ({"": "x"}, '[""]'),
    ({"k" * 64: "x"}, f'["{"k" * 64}"]'),
    ({"\0": "x"}, '["\0"]'),
    ({"k": "x" * 256}, '["k"]'),
    ({"k": "\0"}, '["k"]'),
    ({str(n): "" for n in range(33)}, ""),
)

Case = tuple[Message, str]
"""A request, and the one field that is wrong with it."""


def bad_durations(least: int, most: int) -> list[Duration]:
    """Durations just beyond these limits, given in seconds, and far beyond."""
    return [
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=-(2**63)),
        Duration(seconds=most, nanos=1),
        Duration(seconds=most + 1),
        Duration(seconds=2**63 - 1),
        *([Duration(), Duration(nanos=999_999_999)] if least else []),
    ]


def bad_specs() -> Iterable[tuple[job_pb2.JobSpec, str]]:
    for queue in ("", "x" * 101, "a\0b"):
        yield spec(queue), "queue"
    for job_type in ("", "x" * 101, "-a", "two words", "a\n", "ü", "\0"):
        yield spec(job_type=job_type), "job_type"
    for priority in (-1, 10, 2**31 - 1, -(2**31)):
        yield spec(priority=priority), "priority"
    for max_attempts in (0, 101, 2**31 - 1, -(2**31)):
        yield spec(max_attempts=max_attempts), "max_attempts"
    for moment in BAD_TIMES:
        yield spec(scheduled_for=moment), "scheduled_for"
    for timeout in bad_durations(1, WEEK):
        yield spec(timeout=timeout), "timeout"
    for labels, path in BAD_LABELS:
        yield spec(labels=labels), f"labels{path}"
    for text in ("x" * 65, "ü", "\n", "\0"):
        yield spec(traceparent=text), "traceparent"
    for text in ("x" * 513, "ü", "\n", "\0"):
        yield spec(tracestate=text), "tracestate"
    for text in ("x" * 129, "\0"):
        yield spec(request_id=text), "request_id"


def bad_creations() -> Iterable[Case]:
    yield pb.CreateJobRequest(), "job"
    yield pb.BatchCreateJobsRequest(), "jobs"
    yield pb.BatchCreateJobsRequest(jobs=[spec()] * 1001), "jobs"
    for text in ("x" * 129, "\0"):
        yield pb.BatchCreateJobsRequest(jobs=[spec()], request_id=text), "request_id"
    for bad, field in bad_specs():
        yield pb.CreateJobRequest(job=bad), f"job.{field}"
        yield pb.BatchCreateJobsRequest(jobs=[spec(), bad]), f"jobs[1].{field}"
    # No rule of the contract can say this, so in a batch it is told of the item alone.
    for moment in NO_TIMES:
        yield pb.CreateJobRequest(job=spec(scheduled_for=moment)), "job.scheduled_for"


def bad_lookups() -> Iterable[Case]:
    for text in NO_UUIDS:
        yield pb.GetJobRequest(job_id=text), "job_id"
        yield pb.CancelJobRequest(job_id=text), "job_id"
        yield pb.RetryJobRequest(job_id=text), "job_id"
    for more in (-1, 100, 2**31 - 1):
        yield pb.RetryJobRequest(job_id=ID, additional_attempts=more), "additional_attempts"
    for text in ("x" * 101, "\0"):
        yield pb.ListJobsRequest(queue=text), "queue"
        yield pb.ListJobsRequest(job_type=text), "job_type"
        yield pb.GetJobStatsRequest(queue=text), "queue"
    for status in (7, -1, 2**31 - 1):
        yield pb.ListJobsRequest(status=job_pb2.JobStatus.ValueType(status)), "status"
    for labels, path in BAD_LABELS:
        yield pb.ListJobsRequest(labels=labels), f"labels{path}"
    for moment in (*BAD_TIMES, *NO_TIMES):
        for field in ("scheduled_from", "scheduled_to", "created_from", "created_to"):
            yield pb.ListJobsRequest(**{field: moment}), field  # type: ignore[arg-type]
    for page_size in (-1, -(2**31)):
        yield pb.ListJobsRequest(page_size=page_size), "page_size"
    yield pb.ListJobsRequest(page_token="x" * 2049), "page_token"


def bad_lease_fields() -> Iterable[tuple[dict[str, Any], str]]:
    for text in NO_UUIDS:
        yield {"session_id": text}, "session_id"
    for number in (-1, 0, 10_001, 2**31 - 1):
        yield {"max_in_flight": number}, "max_in_flight"
    yield {"max_in_flight_bytes": -1}, "max_in_flight_bytes"
    for number in (-1, 1, 65_535, 16_777_217):
        yield {"max_message_bytes": number}, "max_message_bytes"
    for lease_duration in bad_durations(1, 3600):
        yield {"lease_duration": lease_duration}, "lease_duration"
    for text in ("x" * 256, "\0"):
        yield {"worker_id": text}, "worker_id"
    for text in ("", "x" * 101, "\0"):
        yield {"queues": ["emails", text]}, "queues[1]"
        yield {"job_types": ["send", text]}, "job_types[1]"
    yield {"queues": ["emails"] * 1001}, "queues"
    yield {"job_types": ["send"] * 101}, "job_types"


def bad_lease_calls() -> Iterable[Case]:
    good: dict[str, Any] = {"session_id": ID, "max_in_flight": 1}
    for bad, field in bad_lease_fields():
        yield pb.LeaseJobsRequest(**good | bad), field
        yield pb.AcquireJobsRequest(**good | bad), field
    for wait in bad_durations(0, 60):
        yield pb.AcquireJobsRequest(wait=wait, **good), "wait"


def bad_settlements() -> Iterable[tuple[pb.Settlement, str]]:
    for text in ("", "x" * 129):
        yield pb.Settlement(lease_token=text, release=pb.Release()), "lease_token"
    yield pb.Settlement(lease_token=TOKEN), "outcome"
    too_long = pb.Success(result='"' + "x" * 1_048_575 + '"')
    yield pb.Settlement(lease_token=TOKEN, success=too_long), "success.result"
    for text in ("x" * 1001, "\0"):
        yield pb.Settlement(lease_token=TOKEN, failure=pb.Failure(message=text)), "failure.message"
    too_long_detail = pb.Failure(detail="x" * 8193)
    yield pb.Settlement(lease_token=TOKEN, failure=too_long_detail), "failure.detail"
    for duration in bad_durations(0, WEEK):
        failure = pb.Failure(retry_after=duration)
        yield pb.Settlement(lease_token=TOKEN, failure=failure), "failure.retry_after"
        yield pb.Settlement(lease_token=TOKEN, snooze=pb.Snooze(delay=duration)), "snooze.delay"


def bad_reports() -> Iterable[Case]:
    good = pb.Settlement(lease_token=TOKEN, release=pb.Release())
    yield pb.BatchSettleJobsRequest(), "settlements"
    yield pb.BatchSettleJobsRequest(settlements=[good] * 1001), "settlements"
    for bad, field in bad_settlements():
        yield pb.BatchSettleJobsRequest(settlements=[good, bad]), f"settlements[1].{field}"
        match bad.WhichOneof("outcome"):
            case "success":
                result = bad.success.result
                yield pb.CompleteJobRequest(lease_token=TOKEN, result=result), "result"
            case "failure":
                yield pb.FailJobRequest(lease_token=TOKEN, failure=bad.failure), field
            case "release":
                yield pb.ReleaseJobRequest(lease_token=bad.lease_token), field
                yield pb.CompleteJobRequest(lease_token=bad.lease_token), field
                yield pb.FailJobRequest(lease_token=bad.lease_token), field
    for text in NO_UUIDS:
        yield pb.HeartbeatRequest(session_id=text, sequence=1), "session_id"
    for sequence in (0, -1, -(2**63)):
        yield pb.HeartbeatRequest(session_id=ID, sequence=sequence), "sequence"
    for lease, field in (
        (pb.HeldLease(), "lease_token"),
        (pb.HeldLease(lease_token="x" * 129), "lease_token"),
        (pb.HeldLease(lease_token=TOKEN, progress="x" * 16_385), "progress"),
    ):
        held = [pb.HeldLease(lease_token=TOKEN), lease]
        yield pb.HeartbeatRequest(session_id=ID, sequence=1, held=held), f"held[1].{field}"
    many = [pb.HeldLease(lease_token="t")] * 10_001
    yield pb.HeartbeatRequest(session_id=ID, sequence=1, held=many), "held"


async def expect_each_refused(
    replica: JobReplica, database: Database, cases: Iterable[Case]
) -> None:
    await insert_queue(database.hot, "emails")
    async with unchanged(database.hot):
        for request, field in cases:
            refusal = await expect_error(
                invoke(replica.stub, request), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
            )
            assert list(refusal.field_violations) == [field], (type(request), str(request)[:500])


async def test_a_creation_beyond_a_limit_is_refused(
    replica: JobReplica, database: Database
) -> None:
    await expect_each_refused(replica, database, bad_creations())


async def test_a_look_up_beyond_a_limit_is_refused(replica: JobReplica, database: Database) -> None:
    await expect_each_refused(replica, database, bad_lookups())


async def test_a_lease_call_beyond_a_limit_is_refused(
    replica: JobReplica, database: Database
) -> None:
    await expect_each_refused(replica, database, bad_lease_calls())


async def test_a_settle_or_heartbeat_beyond_a_limit_is_refused(
    replica: JobReplica, database: Database
) -> None:
    await expect_each_refused(replica, database, bad_reports())


async def test_a_project_is_named_by_its_id_alone(replica: JobReplica, database: Database) -> None:
    needed: tuple[tuple[type[Message], dict[str, Any]], ...] = (
        (pb.CreateJobRequest, {"job": spec()}),
        (pb.BatchCreateJobsRequest, {"jobs": [spec()]}),
        (pb.GetJobRequest, {"job_id": ID}),
        (pb.ListJobsRequest, {}),
        (pb.GetJobStatsRequest, {}),
        (pb.CancelJobRequest, {"job_id": ID}),
        (pb.RetryJobRequest, {"job_id": ID}),
        (pb.LeaseJobsRequest, {"session_id": ID, "max_in_flight": 1}),
        (pb.AcquireJobsRequest, {"session_id": ID, "max_in_flight": 1}),
        (pb.HeartbeatRequest, {"session_id": ID, "sequence": 1}),
    )
    cases = [
        (kind(project_id=text, **fields), "project_id")
        for kind, fields in needed
        for text in NO_UUIDS
        if text
    ]
    await expect_each_refused(replica, database, cases)


async def test_every_wrong_field_is_named_at_once(job_stub: JobStub) -> None:
    request = pb.CreateJobRequest(project_id="default", job=spec("", priority=-1, max_attempts=0))
    refusal = await expect_error(
        job_stub.CreateJob(request), StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
    )
    assert set(refusal.field_violations) == {
        "project_id",
        "job.queue",
        "job.priority",
        "job.max_attempts",
    }


async def test_bytes_that_are_no_message_are_refused_by_every_call(
    replica: JobReplica, database: Database
) -> None:
    service = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
    not_utf8 = b"\x0a\x04\xff\xfe\x00\x80"
    cut_off = b"\x0a\x7f\x61"
    async with unchanged(database.hot):
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            for raw in (cut_off, *([not_utf8] if _begins_with_text(method.input_type) else [])):
                await expect_error(
                    _send_raw(replica, path, raw, is_stream=method.server_streaming),
                    StatusCode.INVALID_ARGUMENT,
                    "INVALID_REQUEST",
                )


def _begins_with_text(message: Any) -> bool:
    first = message.fields_by_number[1]
    return bool(first.type == first.TYPE_STRING)


async def _send_raw(replica: JobReplica, path: str, raw: bytes, *, is_stream: bool = False) -> None:
    if not is_stream:
        await replica.channel.unary_unary(path, None, None)(raw)
        return
    async for _ in replica.channel.unary_stream(path, None, None)(raw):
        pass


async def test_text_that_is_not_utf8_is_refused_deep_inside_a_request(
    replica: JobReplica, database: Database
) -> None:
    await insert_queue(database.hot, "emails")
    request = pb.CreateJobRequest(job=spec(payload='"zzzz"', labels={"k": "zzzz"}))
    raw = request.SerializeToString()
    assert raw.count(b"zzzz") == 2
    async with unchanged(database.hot):
        for damaged in (raw.replace(b'"zzzz"', b'"\xc3\x28\x80z"'), raw[:-4] + b"\xed\xa0\x80z"):
            await expect_error(
                _send_raw(replica, "/taskforge.v1.JobService/CreateJob", damaged),
                StatusCode.INVALID_ARGUMENT,
                "INVALID_REQUEST",
            )
