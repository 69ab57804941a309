"""From a producer's description to the row to insert."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from job_service.drafting import Draft, content_hash, draft
from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.errors import InvalidArgument

QUEUE = UUID(int=7)


def drafted(**fields: Any) -> Draft:
    return draft(job_pb2.JobSpec(queue="emails", job_type="send", **fields), QUEUE, "job")


def test_what_is_left_out_stays_open_for_the_queue_to_say() -> None:
    made = drafted()
    assert made.queue_id == QUEUE
    assert made.job_type == "send"
    assert (made.payload, made.payload_bytes) == ("{}", 2)
    assert made.priority == 0
    assert made.max_attempts is None
    assert made.scheduled_for is None
    assert made.timeout is None
    assert (made.labels, made.traceparent, made.tracestate) == (None, None, None)
    assert (made.request_id, made.content_hash) == (None, None)


def test_what_is_given_is_taken() -> None:
    made = drafted(
        payload='{"to": "a"}',
        priority=9,
        max_attempts=1,
        scheduled_for=Timestamp(seconds=1_800_000_000, nanos=123_456_000),
        timeout=Duration(seconds=90, nanos=500_000_000),
        labels={"b": "2", "a": "1"},
        traceparent="00-abc",
        tracestate="k=v",
        request_id="r1",
    )
    assert (made.payload, made.payload_bytes) == ('{"to": "a"}', 11)
    assert (made.priority, made.max_attempts) == (9, 1)
    assert made.scheduled_for == datetime.fromtimestamp(1_800_000_000, UTC) + timedelta(
        microseconds=123_456
    )
    assert made.timeout == timedelta(seconds=90.5)
    assert made.labels in {'{"a":"1","b":"2"}', '{"b":"2","a":"1"}'}
    assert (made.traceparent, made.tracestate) == ("00-abc", "k=v")
    assert made.request_id == "r1"
    assert made.content_hash is not None


@pytest.mark.parametrize(
    ("payload", "size"), [('"abc"', 5), ('"é"', 4), ('"€"', 5), ('"😀"', 6), ('"\\u20ac"', 8)]
)
def test_payload_bytes_are_those_of_utf_8(payload: str, size: int) -> None:
    assert drafted(payload=payload).payload_bytes == size


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\')))
def test_payload_bytes_are_what_travels(text: str) -> None:
    payload = f'"{text}"'
    assert drafted(payload=payload).payload_bytes == len(payload.encode())


def test_ids_ascend_in_the_order_of_drafting() -> None:
    ids = [drafted().id for _ in range(1000)]
    assert ids == sorted(set(ids))


def test_a_payload_that_is_no_document_is_refused_by_its_field() -> None:
    spec = job_pb2.JobSpec(queue="emails", job_type="send", payload="{")
    with pytest.raises(InvalidArgument) as caught:
        draft(spec, QUEUE, "jobs[3]")
    assert caught.value.reason == "INVALID_JSON"
    assert caught.value.metadata == {"field": "jobs[3].payload"}


@pytest.mark.parametrize("seconds", [0, 253_402_300_799])
def test_the_first_and_the_last_moment_of_the_contract_are_moments(seconds: int) -> None:
    made = drafted(scheduled_for=Timestamp(seconds=seconds))
    assert made.scheduled_for == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def test_a_queue_that_is_not_there_is_left_to_the_insert() -> None:
    """The creation may be a repetition, which is answered whatever became of the queue."""
    assert draft(job_pb2.JobSpec(queue="gone", job_type="send"), None, "job").queue_id is None


# -- content_hash -------------------------------------------------------------------------------

SPEC: dict[str, Any] = {
    "queue": "emails",
    "job_type": "send",
    "payload": '{"a": 1}',
    "priority": 3,
    "max_attempts": 2,
    "scheduled_for": Timestamp(seconds=5),
    "timeout": Duration(seconds=5),
    "labels": {"a": "1"},
    "traceparent": "00-abc",
    "tracestate": "k=v",
    "request_id": "r1",
}

OTHER: dict[str, Any] = {
    "queue": "letters",
    "job_type": "print",
    "payload": '{"a":1}',
    "priority": 0,
    "max_attempts": 3,
    "scheduled_for": Timestamp(seconds=6),
    "timeout": Duration(seconds=5, nanos=1),
    "labels": {"a": "2"},
    "traceparent": "",
    "tracestate": "k=w",
    "request_id": "r2",
}


@pytest.mark.parametrize("field", sorted(SPEC))
def test_every_field_belongs_to_the_content(field: str) -> None:
    first = job_pb2.JobSpec(**SPEC)
    second = job_pb2.JobSpec(**SPEC | {field: OTHER[field]})
    assert content_hash(first) != content_hash(second)


def test_the_fields_above_are_all_there_are() -> None:
    assert set(SPEC) == set(job_pb2.JobSpec.DESCRIPTOR.fields_by_name)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=8), st.randoms())
def test_the_order_of_labels_does_not_belong_to_the_content(
    labels: dict[str, str], random: Any
) -> None:
    pairs = list(labels.items())
    random.shuffle(pairs)
    assert content_hash(job_pb2.JobSpec(labels=labels)) == content_hash(
        job_pb2.JobSpec(labels=dict(pairs))
    )


def test_a_call_is_compared_by_all_its_jobs_in_order() -> None:
    first, second = job_pb2.JobSpec(queue="a"), job_pb2.JobSpec(queue="b")
    hashes = {
        content_hash(pb.BatchCreateJobsRequest(jobs=jobs, request_id="r", all_or_nothing=whole))
        for jobs in ([first, second], [second, first], [first])
        for whole in (True, False)
    }
    assert len(hashes) == 6


def test_a_hash_survives_the_wire() -> None:
    sent = job_pb2.JobSpec(**SPEC)
    assert content_hash(job_pb2.JobSpec.FromString(sent.SerializeToString())) == content_hash(sent)
