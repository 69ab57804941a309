"""Drafts and rows as the contract's messages: whichever way a job is shown, it is the same job."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from job_service.conversion import created_job, lease, stored_job, timestamp
from job_service.demanding import Leased
from job_service.drafting import Draft, draft
from job_service.leasing import MESSAGE_OVERHEAD_BYTES
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.tokens import encode_token, token_head

PROJECT = UUID(int=2)
QUEUE = UUID(int=7)
SESSION = UUID(int=8)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CREATED_AT = 1_800_000_000_123_456

MOMENTS = st.builds(
    Timestamp,
    seconds=st.integers(0, 253_402_300_799),
    nanos=st.integers(0, 999_999).map((1000).__mul__),
)
TIMEOUTS = st.builds(
    Duration, seconds=st.integers(1, 604_799), nanos=st.integers(0, 999_999).map((1000).__mul__)
)
SPECS = st.builds(
    job_pb2.JobSpec,
    queue=st.just("emails"),
    job_type=st.just("send"),
    payload=st.sampled_from(["", "{}", '{"a": "é"}']),
    priority=st.integers(0, 9),
    max_attempts=st.none() | st.integers(1, 100),
    scheduled_for=st.none() | MOMENTS,
    timeout=st.none() | TIMEOUTS,
    labels=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    traceparent=st.sampled_from(["", "00-abc"]),
    tracestate=st.sampled_from(["", "k=v"]),
)


def row_of(made: Draft) -> dict[str, Any]:
    """What is stored of a draft by `insert_jobs`, as `browsing` reads it."""
    created_at = EPOCH + timedelta(microseconds=CREATED_AT)
    return {
        "id": made.id,
        "queue_id": made.queue_id,
        "project_id": PROJECT,
        "job_type": made.job_type,
        "payload": made.payload,
        "status": 1,
        "priority": made.priority,
        "max_attempts": 3,
        "attempt_count": 0,
        "scheduled_for": made.scheduled_for,
        "timeout": made.timeout,
        "timeout_at": None,
        "created_at": created_at,
        "updated_at": created_at,
        "started_at": None,
        "completed_at": None,
        "worker_id": None,
        "progress": None,
        "result": None,
        "attempts": "[]",
        "labels": made.labels,
        "traceparent": made.traceparent,
        "tracestate": made.tracestate,
        "cancel_requested_at": None,
        "origin_job_id": None,
        "origin_queue_id": None,
        "origin_failed_at": None,
        "dead_letter_job_id": None,
    }


def leased_row_of(made: Draft) -> dict[str, Any]:
    """What `claim_jobs` returns of it."""
    return row_of(made) | {
        "id": str(made.id),
        "queue_id": str(made.queue_id),
        "created_at": CREATED_AT,
        "started_at": CREATED_AT + 1,
        "scheduled_for": microseconds(made.scheduled_for),
        "timeout_at": None,
        "attempt_count": 1,
        "worker_id": "worker",
        "session_id": SESSION,
        "lease_seq": 5,
        "payload_bytes": made.payload_bytes,
    }


def microseconds(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - EPOCH) // timedelta(microseconds=1)


@given(st.integers(0, 253_402_300_799_999_999))
def test_moments_are_exact_to_the_microsecond(moment: int) -> None:
    assert timestamp(moment).ToMicroseconds() == moment


def test_moments_before_1970_are_moments_too() -> None:
    assert timestamp(-1) == Timestamp(seconds=-1, nanos=999_999_000)


@given(SPECS)
def test_a_created_job_is_shown_as_it_will_be_read(spec: job_pb2.JobSpec) -> None:
    made = draft(spec, QUEUE, "job")
    scheduled_for = microseconds(made.scheduled_for)
    created = created_job(PROJECT, made, 1, 3, CREATED_AT, scheduled_for)
    assert created == stored_job(row_of(made))


def test_a_created_job_shows_the_delay_that_its_queue_gave_it() -> None:
    made = draft(job_pb2.JobSpec(queue="emails", job_type="send"), QUEUE, "job")
    created = created_job(PROJECT, made, 2, 3, CREATED_AT, CREATED_AT + 10_000_000)
    assert created.scheduled_for == timestamp(CREATED_AT + 10_000_000)
    assert created.status == job_pb2.JOB_STATUS_SCHEDULED


TOKEN = "a token"


def leased(
    row: dict[str, Any], *, worker_id: str = "worker", token: str = TOKEN, expires_at: int = 0
) -> job_pb2.Lease:
    return lease(
        row,
        project_id=str(PROJECT),
        queue_id=str(QUEUE),
        worker_id=worker_id,
        token=token,
        expires_at=timestamp(expires_at),
    )


@given(SPECS)
def test_a_leased_job_is_the_stored_one_but_for_what_the_lease_changed(
    spec: job_pb2.JobSpec,
) -> None:
    made = draft(spec, QUEUE, "job")
    message = leased(leased_row_of(made), expires_at=CREATED_AT + 30_000_000)
    assert message.lease_token == TOKEN
    assert message.expires_at == timestamp(CREATED_AT + 30_000_000)
    expected = stored_job(row_of(made))
    expected.status = job_pb2.JOB_STATUS_PROCESSING
    expected.attempt_count = 1
    expected.worker_id = "worker"
    expected.started_at.CopyFrom(timestamp(CREATED_AT + 1))
    expected.updated_at.CopyFrom(timestamp(CREATED_AT + 1))
    assert message.job == expected


@given(SPECS)
def test_what_the_producer_said_comes_back(spec: job_pb2.JobSpec) -> None:
    job = stored_job(row_of(draft(spec, QUEUE, "job")))
    assert job.payload == (spec.payload or "{}")
    for field in ("job_type", "priority", "labels", "traceparent", "tracestate"):
        assert getattr(job, field) == getattr(spec, field)
    assert job.HasField("scheduled_for") == spec.HasField("scheduled_for")
    assert job.HasField("timeout") == spec.HasField("timeout")
    assert (job.scheduled_for, job.timeout) == (spec.scheduled_for, spec.timeout)


def test_a_finished_job_is_shown_with_all_that_became_of_it() -> None:
    made = draft(job_pb2.JobSpec(queue="emails", job_type="send"), QUEUE, "job")
    moment = EPOCH + timedelta(seconds=1_900_000_000)
    entry = {
        "number": 1,
        "worker_id": "first",
        "started_at": CREATED_AT,
        "ended_at": CREATED_AT + 5,
        "outcome": 2,
        "message": "ran longer than its timeout",
        "detail": '{"at": 1}',
    }
    job = stored_job(
        row_of(made)
        | {
            "status": 4,
            "completed_at": moment,
            "cancel_requested_at": moment,
            "worker_id": "second",
            "progress": "0.5",
            "result": '"done"',
            "attempts": orjson.dumps([entry]).decode(),
        }
    )
    assert job.status == job_pb2.JOB_STATUS_SUCCEEDED
    assert job.completed_at.ToDatetime(tzinfo=UTC) == moment
    assert job.cancel_requested_at.ToDatetime(tzinfo=UTC) == moment
    assert (job.worker_id, job.progress, job.result) == ("second", "0.5", '"done"')
    assert list(job.attempts) == [
        job_pb2.FailedAttempt(
            number=1,
            worker_id="first",
            started_at=timestamp(CREATED_AT),
            ended_at=timestamp(CREATED_AT + 5),
            outcome=job_pb2.ATTEMPT_OUTCOME_TIMED_OUT,
            message="ran longer than its timeout",
            detail='{"at": 1}',
        )
    ]


@pytest.mark.parametrize(
    ("column", "value", "field"),
    [
        ("timeout_at", CREATED_AT + 7, "timeout_at"),
        ("progress", '{"done": 3}', "progress"),
        ("labels", '{"a":"1"}', "labels"),
    ],
)
def test_what_a_job_seldom_has_is_leased_with_it(column: str, value: Any, field: str) -> None:
    made = draft(job_pb2.JobSpec(queue="emails", job_type="send"), QUEUE, "job")
    row = leased_row_of(made)
    bare = leased(row).job
    full = leased(row | {column: value}).job
    assert field not in [each.name for each, _ in bare.ListFields()]
    assert field in [each.name for each, _ in full.ListFields()]


ORIGIN = {
    "origin_job_id": UUID(int=3),
    "origin_queue_id": UUID(int=4),
    "origin_failed_at": EPOCH + timedelta(microseconds=CREATED_AT),
}


def test_a_dead_letter_names_its_origin_leased_and_stored() -> None:
    made = draft(job_pb2.JobSpec(queue="emails", job_type="send"), QUEUE, "job")
    origin = job_pb2.JobOrigin(
        job_id=str(UUID(int=3)), queue_id=str(UUID(int=4)), failed_at=timestamp(CREATED_AT)
    )
    assert leased(leased_row_of(made) | ORIGIN).job.origin == origin
    assert stored_job(row_of(made) | ORIGIN).origin == origin
    assert not stored_job(row_of(made)).HasField("origin")


def test_a_failed_job_names_the_one_that_was_made_for_it() -> None:
    made = draft(job_pb2.JobSpec(queue="emails", job_type="send"), QUEUE, "job")
    assert stored_job(row_of(made)).dead_letter_job_id == ""
    dead = stored_job(row_of(made) | {"dead_letter_job_id": UUID(int=9)})
    assert dead.dead_letter_job_id == str(UUID(int=9))


# -- How large a lease's message can be -----------------------------------------------------------

LONGEST = "\U0001f680"
"""A character of four bytes: limits of texts count characters."""

WIDEST: dict[str, Any] = {
    "id": PROJECT,
    "lease_seq": 16**15 - 1,
    "job_type": "x" * 100,
    "payload": "x" * 1_048_576,
    "payload_bytes": 1_048_576,
    "priority": 9,
    "max_attempts": 100,
    "attempt_count": 100,
    "created_at": 253_402_300_799_999_999,
    "started_at": 253_402_300_799_999_999,
    "scheduled_for": 253_402_300_799_999_999,
    "timeout_at": 253_402_300_799_999_999,
    "timeout": timedelta(days=6, microseconds=999_999),
    "progress": "x" * 16_384,
    "labels": json.dumps({f"{n:02}" + LONGEST * 61: LONGEST * 255 for n in range(32)}),
    "traceparent": "x" * 64,
    "tracestate": "x" * 512,
    "origin_job_id": PROJECT,
    "origin_queue_id": QUEUE,
    "origin_failed_at": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
}
"""A row of `claim_jobs` in which everything is as long as it may be."""


def estimate(row: dict[str, Any]) -> int:
    """What a claim takes its message for: `pick_jobs` measures labels as Postgres writes jsonb."""
    labels = json.dumps(json.loads(row["labels"] or "null"), ensure_ascii=False)
    payload_bytes: int = row["payload_bytes"]
    return (
        payload_bytes
        + (len(labels.encode()) if row["labels"] else 0)
        + len((row["progress"] or "").encode())
        + MESSAGE_OVERHEAD_BYTES
    )


def message_bytes(row: dict[str, Any]) -> int:
    """The larger of the two messages that can carry this lease alone, and what it is measured as
    among others."""
    token = encode_token(token_head(PROJECT, "f" * 8), str(row["id"]), row["lease_seq"])
    message = leased(row, worker_id=LONGEST * 255, token=token, expires_at=253_402_300_799_999_999)
    batch = pb.LeaseBatch(leases=[message])
    return max(
        pb.LeaseJobsResponse(leases=batch).ByteSize(),
        pb.AcquireJobsResponse(leases=[message]).ByteSize(),
        Leased(PROJECT, row["lease_seq"], message).size,
    )


def test_the_estimate_bounds_the_widest_message_that_there_can_be() -> None:
    assert message_bytes(WIDEST) <= estimate(WIDEST)
    # And little is given away: else jobs would be kept from those who can take them.
    assert message_bytes(WIDEST) > estimate(WIDEST) - 512


@given(st.sets(st.sampled_from(sorted(set(WIDEST) - {"id", "queue_id", "session_id"}))))
def test_the_estimate_bounds_every_message(narrow: set[str]) -> None:
    """Whatever a job has little of, or nothing."""
    plain: dict[str, Any] = {
        "lease_seq": 1,
        "job_type": "x",
        "payload": "{}",
        "payload_bytes": 2,
        "priority": 0,
        "max_attempts": 1,
        "attempt_count": 1,
        "created_at": 0,
        "started_at": 0,
        "worker_id": "",
    }
    row = WIDEST | {name: plain.get(name) for name in narrow}
    row["payload_bytes"] = len(row["payload"])
    assert message_bytes(row) <= estimate(row)


@given(
    st.dictionaries(st.text(min_size=1, max_size=63), st.text(max_size=255), max_size=32),
    st.text(max_size=255),
)
def test_the_estimate_bounds_the_message_whatever_the_texts_are(
    labels: dict[str, str], worker_id: str
) -> None:
    row = WIDEST | {"labels": json.dumps(labels) if labels else None, "worker_id": worker_id}
    assert message_bytes(row) <= estimate(row)
