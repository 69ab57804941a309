"""Times in requests: what the wire carries and protobuf does not allow."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from taskforge.v1 import job_service_pb2, queue_service_pb2
from taskforge_core.times import time_check

DURATION, TIMESTAMP = Duration.DESCRIPTOR, Timestamp.DESCRIPTOR


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (0, 0),
        (1, 999_999_999),
        (0, -999_999_999),
        (-1, -1),
        (315_576_000_000, 999_999_999),
        (-315_576_000_000, 0),
    ],
)
def test_durations_that_protobuf_allows_are_durations(seconds: int, nanos: int) -> None:
    check = time_check(DURATION)
    assert check is not None
    assert not check(Duration(seconds=seconds, nanos=nanos))


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (0, 1_000_000_000),
        (0, -1_000_000_000),
        (1, -1),
        (-1, 1),
        (315_576_000_001, 0),
        (-315_576_000_001, 0),
        (2**63 - 1, 2**31 - 1),
    ],
)
def test_other_durations_are_none(seconds: int, nanos: int) -> None:
    check = time_check(DURATION)
    assert check is not None
    assert [each.field for each in check(Duration(seconds=seconds, nanos=nanos))] == [""]


@pytest.mark.parametrize(
    ("seconds", "nanos", "is_time"),
    [
        (-62_135_596_800, 0, True),
        (-62_135_596_801, 999_999_999, False),
        (253_402_300_799, 999_999_999, True),
        (253_402_300_800, 0, False),
        (0, -1, False),
        (0, 1_000_000_000, False),
        (2**63 - 1, 0, False),
    ],
)
def test_timestamps_are_of_the_years_that_protobuf_allows(
    seconds: int, nanos: int, is_time: bool
) -> None:
    check = time_check(TIMESTAMP)
    assert check is not None
    assert (not check(Timestamp(seconds=seconds, nanos=nanos))) is is_time


def test_times_are_found_wherever_they_are_in_a_message() -> None:
    request = job_service_pb2.BatchCreateJobsRequest()
    for _ in range(3):
        request.jobs.add().timeout.seconds = 1
    request.jobs[1].timeout.nanos = -1
    request.jobs[2].scheduled_for.nanos = -1
    check = time_check(request.DESCRIPTOR)
    assert check is not None
    assert [each.field for each in check(request)] == ["jobs[1].timeout", "jobs[2].scheduled_for"]


def test_times_in_messages_in_messages_are_found() -> None:
    request = queue_service_pb2.CreateQueueRequest()
    request.settings.delay_by_priority.low.nanos = -(2**31)
    check = time_check(request.DESCRIPTOR)
    assert check is not None
    [violation] = check(request)
    assert violation.field == "settings.delay_by_priority.low"


def test_messages_without_times_are_not_looked_at() -> None:
    assert time_check(job_service_pb2.GetJobRequest.DESCRIPTOR) is None
