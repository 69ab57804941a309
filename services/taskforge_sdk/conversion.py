"""Between the contract's messages and the SDK's values: the one place that knows both."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from taskforge.v1 import job_pb2, job_service_pb2, queue_pb2, queue_service_pb2
from taskforge_sdk import documents, models
from taskforge_sdk.errors import from_status, invalid

SETTING_FIELDS: Final = tuple(field.name for field in queue_pb2.QueueSettings.DESCRIPTOR.fields)
_DURATION_FIELDS: Final = frozenset(
    field.name
    for field in queue_pb2.QueueSettings.DESCRIPTOR.fields
    if field.message_type is Duration.DESCRIPTOR
)
_DELAY_FIELDS: Final = tuple(field.name for field in queue_pb2.PriorityDelays.DESCRIPTOR.fields)


def seconds_of(span: models.Span, field: str) -> float:
    """A span in seconds; InvalidRequest, naming the field, unless it is positive."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if not 0 < seconds < float("inf"):
        raise invalid(field, "must be a positive length of time")
    return seconds


def duration_of(span: models.Span | None, field: str) -> Duration | None:
    """A span as the contract writes it; its range is the server's to check."""
    if span is None:
        return None
    duration = Duration()
    try:
        duration.FromTimedelta(span if isinstance(span, timedelta) else timedelta(seconds=span))
    except (TypeError, ValueError, OverflowError) as error:
        raise invalid(field, f"is no length of time: {error}") from error
    return duration


def timestamp_of(moment: datetime | None, field: str) -> Timestamp | None:
    """An aware datetime as the contract writes it; a naive one names no moment."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise invalid(field, "must have a timezone")
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def moment(message: Timestamp) -> datetime:
    """A point in time, in UTC, cut to microseconds."""
    return message.ToDatetime(tzinfo=UTC)


def settings_message(
    settings: models.QueueSettings | models.SettingsChange,
) -> queue_pb2.QueueSettings:
    """Queue settings, of which those that are None stay unset."""
    message = queue_pb2.QueueSettings()
    for name in SETTING_FIELDS:
        value: Any = settings.get(name) if isinstance(settings, dict) else getattr(settings, name)
        if value is None:
            continue
        if name in _DURATION_FIELDS:
            getattr(message, name).CopyFrom(duration_of(value, f"settings.{name}"))
        elif name == "delay_by_priority":
            message.delay_by_priority.CopyFrom(_delays_message(value))
        else:
            setattr(message, name, value)
    return message


def _delays_message(delays: models.PriorityDelays) -> queue_pb2.PriorityDelays:
    """The delays that are given; none at all is a message too, and means the contract's delays."""
    spans = {name: getattr(delays, name) for name in _DELAY_FIELDS}
    return queue_pb2.PriorityDelays(
        **{
            name: duration_of(span, f"settings.delay_by_priority.{name}")
            for name, span in spans.items()
        }
    )


def job_spec(job: models.NewJob) -> job_pb2.JobSpec:
    """A job as its producer describes it; what is not given stays unset."""
    return job_pb2.JobSpec(
        queue=job.queue,
        job_type=job.job_type,
        payload=documents.encode(job.payload, "payload"),
        priority=job.priority,
        max_attempts=job.max_attempts,
        scheduled_for=timestamp_of(job.scheduled_for, "scheduled_for"),
        timeout=duration_of(job.timeout, "timeout"),
        labels=job.labels,
        traceparent=job.traceparent,
        tracestate=job.tracestate,
        request_id=job.request_id or "",
    )


def queue(message: queue_pb2.Queue) -> models.Queue:
    """A queue as the server described it."""
    return models.Queue(
        id=message.id,
        project_id=message.project_id,
        name=message.name,
        description=message.description,
        priority=message.priority,
        settings=settings(message.settings),
        is_active=message.is_active,
        created_at=moment(message.created_at),
        updated_at=moment(message.updated_at),
        accepts_jobs=message.accepts_jobs,
        resume_at=moment(message.resume_at) if message.HasField("resume_at") else None,
    )


def settings(message: queue_pb2.QueueSettings) -> models.QueueSettings:
    """A queue's settings; what is not set is None."""
    values = {field.name: value for field, value in message.ListFields()}
    for name in _DURATION_FIELDS & values.keys():
        values[name] = values[name].ToTimedelta()
    if "delay_by_priority" in values:
        delays = values["delay_by_priority"].ListFields()
        values["delay_by_priority"] = models.PriorityDelays(
            **{field.name: delay.ToTimedelta() for field, delay in delays}
        )
    return models.QueueSettings(**values)


def counts(message: queue_pb2.JobCounts) -> models.JobCounts:
    """How many jobs are in each status."""
    return models.JobCounts(
        pending=message.pending,
        scheduled=message.scheduled,
        processing=message.processing,
        succeeded=message.succeeded,
        failed=message.failed,
        cancelled=message.cancelled,
    )


def queue_stats(message: queue_service_pb2.GetQueueStatsResponse) -> models.QueueStats:
    """How a queue stands."""
    age = message.oldest_ready_age.ToTimedelta() if message.HasField("oldest_ready_age") else None
    return models.QueueStats(
        queue_id=message.queue_id,
        is_active=message.is_active,
        counts=counts(message.counts),
        oldest_ready_age=age,
    )


def purge_result(message: queue_service_pb2.PurgeQueueResponse) -> models.PurgeResult:
    """What a purge removed, or would remove."""
    return models.PurgeResult(
        cancelled_jobs=message.cancelled_jobs, deleted_jobs=message.deleted_jobs
    )


def job_stats(message: job_service_pb2.GetJobStatsResponse) -> models.JobStats:
    """How many jobs there are."""
    return models.JobStats(
        queue_id=message.queue_id, total=message.total, counts=counts(message.counts)
    )


def job(message: job_pb2.Job) -> models.Job:
    """A job as the server described it."""
    when = _times(message)
    return models.Job(
        id=message.id,
        queue_id=message.queue_id,
        project_id=message.project_id,
        job_type=message.job_type,
        payload_json=message.payload,
        status=models.JobStatus(message.status),
        priority=message.priority,
        max_attempts=message.max_attempts,
        attempt_count=message.attempt_count,
        scheduled_for=when.get("scheduled_for"),
        timeout=message.timeout.ToTimedelta() if message.HasField("timeout") else None,
        timeout_at=when.get("timeout_at"),
        created_at=when.get("created_at"),
        updated_at=when.get("updated_at"),
        started_at=when.get("started_at"),
        completed_at=when.get("completed_at"),
        worker_id=message.worker_id,
        progress_json=message.progress,
        result_json=message.result,
        attempts=tuple(failed_attempt(each) for each in message.attempts),
        labels=dict(message.labels),
        traceparent=message.traceparent,
        tracestate=message.tracestate,
        cancel_requested_at=when.get("cancel_requested_at"),
        origin=origin(message),
        dead_letter_job_id=message.dead_letter_job_id,
    )


def origin(message: job_pb2.Job) -> models.JobOrigin | None:
    """Where a job of a dead-letter queue comes from; None for any other."""
    if not message.HasField("origin"):
        return None
    return models.JobOrigin(
        job_id=message.origin.job_id,
        queue_id=message.origin.queue_id,
        failed_at=moment(message.origin.failed_at),
    )


def failed_attempt(message: job_pb2.FailedAttempt) -> models.FailedAttempt:
    """An attempt that did not succeed."""
    return models.FailedAttempt(
        number=message.number,
        worker_id=message.worker_id,
        started_at=moment(message.started_at) if message.HasField("started_at") else None,
        ended_at=moment(message.ended_at) if message.HasField("ended_at") else None,
        outcome=models.AttemptOutcome(message.outcome),
        message=message.message,
        detail_json=message.detail,
    )


def created_job(message: job_service_pb2.CreatedJob) -> models.CreatedJob:
    """What became of one job of a batch."""
    if message.HasField("error"):
        return models.CreatedJob(job_id=None, error=from_status(message.error))
    return models.CreatedJob(job_id=message.job_id, error=None)


def worker(message: job_service_pb2.Worker) -> models.WorkerInfo:
    """A worker as the server knows it."""
    when = _times(message)
    return models.WorkerInfo(
        session_id=message.session_id,
        project_id=message.project_id,
        worker_id=message.worker_id,
        max_in_flight=message.max_in_flight,
        draining=message.draining,
        connected=message.connected,
        held_jobs=message.held_jobs,
        held_job_ids=tuple(message.held_job_ids),
        created_at=when.get("created_at"),
        last_heartbeat_at=when.get("last_heartbeat_at"),
        expires_at=when.get("expires_at"),
    )


def _times(message: Message) -> dict[str, datetime]:
    """A message's times, by field; those that are not set are missing."""
    return {
        field.name: moment(value)
        for field, value in message.ListFields()
        if isinstance(value, Timestamp)
    }
