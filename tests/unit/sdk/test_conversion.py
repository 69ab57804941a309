"""Between the contract's messages and the SDK's values."""

from datetime import UTC, datetime, timedelta

import pytest

from taskforge.v1 import job_pb2, job_service_pb2, queue_pb2, queue_service_pb2
from taskforge_sdk import (
    AttemptOutcome,
    InvalidRequest,
    JobCounts,
    JobOrigin,
    JobStatus,
    PriorityDelays,
    PurgeResult,
    QueueSettings,
    WorkerInfo,
    conversion,
    models,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_the_enums_are_the_contracts() -> None:
    assert {each.name: each.value for each in JobStatus} == {
        name.removeprefix("JOB_STATUS_"): number for name, number in job_pb2.JobStatus.items()
    }
    assert {each.name: each.value for each in AttemptOutcome} == {
        name.removeprefix("ATTEMPT_OUTCOME_"): number
        for name, number in job_pb2.AttemptOutcome.items()
    }


def test_a_status_of_a_newer_server_is_unspecified() -> None:
    assert JobStatus(77) is JobStatus.UNSPECIFIED
    assert AttemptOutcome(77) is AttemptOutcome.UNSPECIFIED


def test_the_values_have_the_contracts_fields() -> None:
    def fields(message: type) -> set[str]:
        return {field.name for field in message.DESCRIPTOR.fields}  # type: ignore[attr-defined]

    def names(value: type) -> set[str]:
        return {name.removesuffix("_json") for name in value.__dataclass_fields__}  # type: ignore[attr-defined]

    assert names(models.Queue) == fields(queue_pb2.Queue)
    assert names(PriorityDelays) == fields(queue_pb2.PriorityDelays)
    assert names(JobOrigin) == fields(job_pb2.JobOrigin)
    assert names(WorkerInfo) == fields(job_service_pb2.Worker)
    assert names(PurgeResult) == fields(queue_service_pb2.PurgeQueueResponse)
    assert names(QueueSettings) == fields(queue_pb2.QueueSettings)
    assert names(models.Job) == fields(job_pb2.Job)
    assert names(models.NewJob) == fields(job_pb2.JobSpec)
    assert names(models.FailedAttempt) == fields(job_pb2.FailedAttempt)
    assert names(JobCounts) == fields(queue_pb2.JobCounts)
    assert names(models.JobStats) == fields(job_service_pb2.GetJobStatsResponse)
    assert names(models.QueueStats) == fields(queue_service_pb2.GetQueueStatsResponse)
    assert models.SettingsChange.__annotations__.keys() == fields(queue_pb2.QueueSettings)


def test_a_job_comes_with_its_times_documents_and_failed_attempts() -> None:
    message = job_pb2.Job(
        id="j1",
        status=job_pb2.JOB_STATUS_FAILED,
        payload='{"a":[1]}',
        progress="0.5",
        result="",
        labels={"k": "v"},
        attempts=[
            job_pb2.FailedAttempt(
                number=1,
                outcome=job_pb2.ATTEMPT_OUTCOME_TIMED_OUT,
                message="too slow",
                detail='{"x":1}',
            )
        ],
    )
    message.created_at.FromDatetime(NOON)
    message.timeout.FromSeconds(90)
    message.attempts[0].ended_at.FromDatetime(NOON)
    job = conversion.job(message)

    assert job.status is JobStatus.FAILED
    assert job.status.is_final
    assert (job.payload, job.progress, job.result) == ({"a": [1]}, 0.5, None)
    assert (job.created_at, job.completed_at) == (NOON, None)
    assert job.timeout == timedelta(seconds=90)
    assert job.labels == {"k": "v"}
    (attempt,) = job.attempts
    assert attempt.outcome is AttemptOutcome.TIMED_OUT
    assert (attempt.started_at, attempt.ended_at) == (None, NOON)
    assert attempt.detail == {"x": 1}


def test_settings_go_there_and_back() -> None:
    settings = QueueSettings(
        max_retries=0,
        timeout=timedelta(seconds=1.5),
        retry_delay=timedelta(0),
        max_retry_delay=timedelta(days=7),
        backoff_multiplier=1.5,
        retry_jitter=0.0,
        max_payload_bytes=1,
        max_concurrent_jobs=2,
        rate_limit_per_minute=3,
        dead_letter_queue_id="0192a000-0000-7000-8000-000000000001",
        delay_by_priority=PriorityDelays(low=timedelta(minutes=1), urgent=timedelta(0)),
    )
    assert conversion.settings(conversion.settings_message(settings)) == settings
    for plain in (QueueSettings(), QueueSettings(delay_by_priority=PriorityDelays())):
        assert conversion.settings(conversion.settings_message(plain)) == plain


def test_a_queue_says_how_it_is_paused() -> None:
    message = queue_pb2.Queue(name="emails", accepts_jobs=True)
    queue = conversion.queue(message)
    assert (queue.is_active, queue.accepts_jobs, queue.resume_at) == (False, True, None)
    message.resume_at.FromDatetime(NOON)
    assert conversion.queue(message).resume_at == NOON


def test_a_job_says_where_it_comes_from_and_what_was_made_for_it() -> None:
    plain = conversion.job(job_pb2.Job(id="j1"))
    assert (plain.origin, plain.dead_letter_job_id) == (None, "")
    message = job_pb2.Job(id="j2", dead_letter_job_id="j3")
    message.origin.job_id, message.origin.queue_id = "j1", "q1"
    message.origin.failed_at.FromDatetime(NOON)
    job = conversion.job(message)
    assert job.origin == JobOrigin(job_id="j1", queue_id="q1", failed_at=NOON)
    assert job.dead_letter_job_id == "j3"


def test_a_worker_comes_with_what_it_holds_and_the_times_that_it_has() -> None:
    message = job_service_pb2.Worker(
        session_id="s",
        project_id="p",
        worker_id="host:1",
        max_in_flight=8,
        draining=True,
        connected=True,
        held_jobs=2,
        held_job_ids=["j1", "j2"],
    )
    message.created_at.FromDatetime(NOON)
    assert conversion.worker(message) == WorkerInfo(
        "s", "p", "host:1", 8, True, True, 2, ("j1", "j2"), NOON, None, None
    )


def test_counts_add_up() -> None:
    counts = JobCounts(pending=1, scheduled=2, processing=4, succeeded=8, failed=16, cancelled=32)
    assert (counts.total, counts.unfinished) == (63, 7)


@pytest.mark.parametrize("span", [float("nan"), float("inf"), "soon"])
def test_what_is_no_length_of_time_is_refused(span: float) -> None:
    with pytest.raises(InvalidRequest, match="timeout: is no length of time"):
        conversion.duration_of(span, "timeout")


@pytest.mark.parametrize("span", [0, -1, timedelta(0), float("nan"), float("inf")])
def test_a_timeout_of_the_clients_own_is_positive(span: float | timedelta) -> None:
    with pytest.raises(InvalidRequest, match="timeout: must be a positive length of time"):
        conversion.seconds_of(span, "timeout")


def test_a_queues_age_is_none_when_no_job_is_ready() -> None:
    stats = queue_service_pb2.GetQueueStatsResponse(queue_id="q")
    assert conversion.queue_stats(stats).oldest_ready_age is None
    stats.oldest_ready_age.FromSeconds(3)
    assert conversion.queue_stats(stats).oldest_ready_age == timedelta(seconds=3)
