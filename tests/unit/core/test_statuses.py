"""The numbers and ways of a job's status."""

import pytest

from taskforge.v1 import job_pb2
from taskforge_core.statuses import (
    FINISHED,
    TRANSITIONS,
    UNFINISHED,
    WAITING,
    AttemptOutcome,
    JobStatus,
)


def test_the_statuses_are_those_of_the_contract() -> None:
    contract = {
        name.removeprefix("JOB_STATUS_"): number
        for name, number in job_pb2.JobStatus.items()
        if number != 0
    }
    assert {status.name: status.value for status in JobStatus} == contract


def test_the_outcomes_are_those_of_the_contract() -> None:
    contract = {
        name.removeprefix("ATTEMPT_OUTCOME_"): number
        for name, number in job_pb2.AttemptOutcome.items()
        if number != 0
    }
    assert {outcome.name: outcome.value for outcome in AttemptOutcome} == contract


def test_a_job_is_either_unfinished_or_finished() -> None:
    assert set(JobStatus) == UNFINISHED | FINISHED
    assert not UNFINISHED & FINISHED
    assert {JobStatus.PROCESSING} == UNFINISHED - WAITING


def test_the_transitions_are_these_and_no_others() -> None:
    pending, scheduled, processing = JobStatus.PENDING, JobStatus.SCHEDULED, JobStatus.PROCESSING
    succeeded, failed, cancelled = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED
    assert {(start, end) for start, ends in TRANSITIONS.items() for end in ends} == {
        (pending, processing),
        (pending, cancelled),
        (scheduled, pending),
        (scheduled, cancelled),
        (processing, pending),
        (processing, scheduled),
        (processing, succeeded),
        (processing, failed),
        (processing, cancelled),
        (failed, pending),
    }


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_knows_its_ways(status: JobStatus) -> None:
    assert status in TRANSITIONS
    assert status not in TRANSITIONS[status]


@pytest.mark.parametrize("status", FINISHED)
def test_what_is_finished_stays_but_a_failed_job_retried_by_hand(status: JobStatus) -> None:
    expected = {JobStatus.PENDING} if status is JobStatus.FAILED else set()
    assert TRANSITIONS[status] == expected
