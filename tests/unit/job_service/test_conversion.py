"""Drafts and rows as the contract's messages: whichever way a job is shown, it is the same job."""

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
from job_service.drafting import Draft, draft
from taskforge.v1 import job_pb2

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


@given(SPECS)
def test_a_leased_job_is_the_stored_one_but_for_what_the_lease_changed(
    spec: job_pb2.JobSpec,
) -> None:
    made = draft(spec, QUEUE, "job")
    message = lease(leased_row_of(made), str(PROJECT), "token", CREATED_AT + 30_000_000)
    assert message.lease_token == "token"
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
    bare = lease(row, str(PROJECT), "token", 0).job
    full = lease(row | {column: value}, str(PROJECT), "token", 0).job
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
    assert lease(leased_row_of(made) | ORIGIN, str(PROJECT), "token", 0).job.origin == origin
    assert stored_job(row_of(made) | ORIGIN).origin == origin
    assert not stored_job(row_of(made)).HasField("origin")


def test_a_failed_job_names_the_one_that_was_made_for_it() -> None:
    made = draft(job_pb2.JobSpec(queue="emails", job_type="send"), QUEUE, "job")
    assert stored_job(row_of(made)).dead_letter_job_id == ""
    dead = stored_job(row_of(made) | {"dead_letter_job_id": UUID(int=9)})
    assert dead.dead_letter_job_id == str(UUID(int=9))
