"""Queues, jobs and workers as JSON for scripts: what `--json` prints.

The keys are those of the contract; a duration is a number of seconds and says so in its key. A key
is always there: what is not set is null. Times are ISO 8601 in UTC. A payload, result, progress or
detail stands in the document as it was sent.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from taskforge_sdk import (
    FailedAttempt,
    Job,
    JobCounts,
    JobOrigin,
    JobStats,
    PriorityDelays,
    PurgeResult,
    Queue,
    QueueStats,
    WorkerInfo,
)


def to_json(document: dict[str, Any]) -> str:
    """One JSON document, indented for people who look at it."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def queue_document(queue: Queue) -> dict[str, Any]:
    """A queue with its settings."""
    settings = queue.settings
    return {
        "id": queue.id,
        "project_id": queue.project_id,
        "name": queue.name,
        "description": queue.description,
        "priority": queue.priority,
        "is_active": queue.is_active,
        "accepts_jobs": queue.accepts_jobs,
        "resume_at": time_value(queue.resume_at),
        "settings": {
            "max_retries": settings.max_retries,
            "timeout_seconds": _seconds(settings.timeout),
            "retry_delay_seconds": _seconds(settings.retry_delay),
            "max_retry_delay_seconds": _seconds(settings.max_retry_delay),
            "backoff_multiplier": settings.backoff_multiplier,
            "retry_jitter": settings.retry_jitter,
            "max_payload_bytes": settings.max_payload_bytes,
            "max_concurrent_jobs": settings.max_concurrent_jobs,
            "rate_limit_per_minute": settings.rate_limit_per_minute,
            "dead_letter_queue_id": settings.dead_letter_queue_id,
            "delay_by_priority": _delays(settings.delay_by_priority),
        },
        "created_at": time_value(queue.created_at),
        "updated_at": time_value(queue.updated_at),
    }


def queues_document(queues: Iterable[Queue]) -> dict[str, Any]:
    """A list of queues."""
    return {"queues": [queue_document(queue) for queue in queues]}


def queue_stats_document(stats: QueueStats) -> dict[str, Any]:
    """How a queue stands."""
    return {
        "queue_id": stats.queue_id,
        "is_active": stats.is_active,
        "total": stats.counts.total,
        "counts": _counts(stats.counts),
        "oldest_ready_age_seconds": _seconds(stats.oldest_ready_age),
    }


def purge_document(result: PurgeResult, *, dry_run: bool) -> dict[str, Any]:
    """What a purge removed, or would remove."""
    return {
        "cancelled_jobs": result.cancelled_jobs,
        "deleted_jobs": result.deleted_jobs,
        "dry_run": dry_run,
    }


def job_stats_document(stats: JobStats) -> dict[str, Any]:
    """How many jobs there are; `queue_id` is null for the whole project."""
    return {
        "queue_id": stats.queue_id or None,
        "total": stats.total,
        "counts": _counts(stats.counts),
    }


def job_document(job: Job) -> dict[str, Any]:
    """A job with its failed attempts."""
    return {
        "id": job.id,
        "queue_id": job.queue_id,
        "project_id": job.project_id,
        "job_type": job.job_type,
        "payload": _embedded(job.payload_json),
        "status": job.status.name,
        "priority": job.priority,
        "max_attempts": job.max_attempts,
        "attempt_count": job.attempt_count,
        "scheduled_for": time_value(job.scheduled_for),
        "timeout_seconds": _seconds(job.timeout),
        "timeout_at": time_value(job.timeout_at),
        "created_at": time_value(job.created_at),
        "updated_at": time_value(job.updated_at),
        "started_at": time_value(job.started_at),
        "completed_at": time_value(job.completed_at),
        "cancel_requested_at": time_value(job.cancel_requested_at),
        "worker_id": job.worker_id or None,
        "progress": _embedded(job.progress_json),
        "result": _embedded(job.result_json),
        "attempts": [_attempt(attempt) for attempt in job.attempts],
        "labels": dict(job.labels),
        "traceparent": job.traceparent or None,
        "tracestate": job.tracestate or None,
        "origin": _origin(job.origin),
        "dead_letter_job_id": job.dead_letter_job_id or None,
    }


def jobs_document(jobs: Iterable[Job]) -> dict[str, Any]:
    """A list of jobs."""
    return {"jobs": [job_document(job) for job in jobs]}


def worker_document(worker: WorkerInfo) -> dict[str, Any]:
    """A worker with the ids of the oldest 100 jobs that it holds."""
    return {
        "session_id": worker.session_id,
        "project_id": worker.project_id,
        "worker_id": worker.worker_id,
        "max_in_flight": worker.max_in_flight,
        "draining": worker.draining,
        "connected": worker.connected,
        "held_jobs": worker.held_jobs,
        "held_job_ids": list(worker.held_job_ids),
        "created_at": time_value(worker.created_at),
        "last_heartbeat_at": time_value(worker.last_heartbeat_at),
        "expires_at": time_value(worker.expires_at),
    }


def workers_document(workers: Iterable[WorkerInfo]) -> dict[str, Any]:
    """A list of workers."""
    return {"workers": [worker_document(worker) for worker in workers]}


def _delays(delays: PriorityDelays | None) -> dict[str, float | None] | None:
    """Null: no job waits; a band that is null waits as the contract says."""
    if delays is None:
        return None
    return {
        "low_seconds": _seconds(delays.low),
        "medium_seconds": _seconds(delays.medium),
        "high_seconds": _seconds(delays.high),
        "urgent_seconds": _seconds(delays.urgent),
    }


def _origin(origin: JobOrigin | None) -> dict[str, Any] | None:
    if origin is None:
        return None
    return {
        "job_id": origin.job_id,
        "queue_id": origin.queue_id,
        "failed_at": time_value(origin.failed_at),
    }


def _attempt(attempt: FailedAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "worker_id": attempt.worker_id or None,
        "started_at": time_value(attempt.started_at),
        "ended_at": time_value(attempt.ended_at),
        "outcome": attempt.outcome.name,
        "message": attempt.message,
        "detail": _embedded(attempt.detail_json),
    }


def _counts(counts: JobCounts) -> dict[str, int]:
    return {
        "pending": counts.pending,
        "scheduled": counts.scheduled,
        "processing": counts.processing,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
    }


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def time_value(time: datetime | None) -> str | None:
    """A time as documents have it: ISO 8601 in UTC; null where it is not set."""
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _embedded(text: str) -> orjson.Fragment | None:
    """The document as its sender wrote it: parsing it could change a number or drop a key."""
    return orjson.Fragment(text) if text else None
