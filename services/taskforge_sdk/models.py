"""What the calls take and return: values without behaviour, times aware, durations `timedelta`."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeAlias, TypedDict

from taskforge_sdk import documents
from taskforge_sdk.errors import TaskForgeError

Span: TypeAlias = timedelta | float
"""A length of time: a timedelta, or a number of seconds."""


class JobStatus(enum.IntEnum):
    """Where a job stands."""

    UNSPECIFIED = 0
    PENDING = 1
    SCHEDULED = 2
    PROCESSING = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}

    @classmethod
    def _missing_(cls, _value: object) -> "JobStatus":
        return cls.UNSPECIFIED  # a newer server may know more


class AttemptOutcome(enum.IntEnum):
    """How an attempt that did not succeed ended."""

    UNSPECIFIED = 0
    FAILURE = 1
    TIMED_OUT = 2
    LEASE_EXPIRED = 3
    CANCELLED = 4
    UNDELIVERED = 5

    @classmethod
    def _missing_(cls, _value: object) -> "AttemptOutcome":
        return cls.UNSPECIFIED  # a newer server may know more


@dataclass(frozen=True, slots=True)
class PriorityDelays:
    """How long new jobs wait before they are ready, by their priority.

    None means the contract's delay: 30 s for `low` (0 to 2), 10 s for `medium` (3 to 5), 5 s for
    `high` (6 and 7), none for `urgent` (8 and 9).
    """

    low: timedelta | None = None
    medium: timedelta | None = None
    high: timedelta | None = None
    urgent: timedelta | None = None


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The rules that a queue's jobs follow; None means the default that the contract states."""

    max_retries: int | None = None
    timeout: timedelta | None = None
    retry_delay: timedelta | None = None
    max_retry_delay: timedelta | None = None
    backoff_multiplier: float | None = None
    retry_jitter: float | None = None
    max_payload_bytes: int | None = None
    max_concurrent_jobs: int | None = None
    rate_limit_per_minute: int | None = None
    dead_letter_queue_id: str | None = None
    delay_by_priority: PriorityDelays | None = None


class SettingsChange(TypedDict, total=False):
    """The settings to change, each alone; None sets one back to its default."""

    max_retries: int | None
    timeout: timedelta | None
    retry_delay: timedelta | None
    max_retry_delay: timedelta | None
    backoff_multiplier: float | None
    retry_jitter: float | None
    max_payload_bytes: int | None
    max_concurrent_jobs: int | None
    rate_limit_per_minute: int | None
    dead_letter_queue_id: str | None
    delay_by_priority: PriorityDelays | None


@dataclass(frozen=True, slots=True)
class Queue:
    """Where jobs wait, and the rules that they follow.

    `accepts_jobs` is False while the queue is paused without `keep_accepting`; `resume_at` is when
    a paused queue opens by itself, if it does.
    """

    id: str
    project_id: str
    name: str
    description: str
    priority: int
    settings: QueueSettings
    is_active: bool
    created_at: datetime
    updated_at: datetime
    accepts_jobs: bool
    resume_at: datetime | None


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs are in each status."""

    pending: int = 0
    scheduled: int = 0
    processing: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All jobs together."""
        return self.unfinished + self.succeeded + self.failed + self.cancelled

    @property
    def unfinished(self) -> int:
        """The jobs that wait or run."""
        return self.pending + self.scheduled + self.processing


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How a queue stands; `oldest_ready_age` is None when no job is ready."""

    queue_id: str
    is_active: bool
    counts: JobCounts
    oldest_ready_age: timedelta | None


@dataclass(frozen=True, slots=True)
class JobStats:
    """How many jobs a queue has, or the project, for which `queue_id` is empty."""

    queue_id: str
    total: int
    counts: JobCounts


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """How many waiting jobs were cancelled and finished ones deleted, or would be."""

    cancelled_jobs: int
    deleted_jobs: int


@dataclass(frozen=True)
class FailedAttempt:
    """An attempt that did not succeed."""

    number: int
    worker_id: str
    started_at: datetime | None
    ended_at: datetime | None
    outcome: AttemptOutcome
    message: str
    detail_json: str

    @cached_property
    def detail(self) -> Any:
        """What the worker added; None if it added nothing."""
        return documents.decode(self.detail_json)


@dataclass(frozen=True, slots=True)
class JobOrigin:
    """The job that failed in another queue, for which a job of a dead-letter queue was made."""

    job_id: str
    queue_id: str
    failed_at: datetime


@dataclass(frozen=True)
class Job:
    """A piece of work, as it stood when the server answered. Times are the database's.

    `origin` says where a job of a dead-letter queue comes from, also after it was redriven;
    `dead_letter_job_id` names the job that was made for this one when it failed, if one was.
    """

    id: str
    queue_id: str
    project_id: str
    job_type: str
    payload_json: str
    status: JobStatus
    priority: int
    max_attempts: int
    attempt_count: int
    scheduled_for: datetime | None
    timeout: timedelta | None
    timeout_at: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    worker_id: str
    progress_json: str
    result_json: str
    attempts: tuple[FailedAttempt, ...]
    labels: Mapping[str, str]
    traceparent: str
    tracestate: str
    cancel_requested_at: datetime | None
    origin: JobOrigin | None
    dead_letter_job_id: str

    @cached_property
    def payload(self) -> Any:
        """The payload's value."""
        return documents.decode(self.payload_json)

    @cached_property
    def progress(self) -> Any:
        """What the worker last reported; None if it never did."""
        return documents.decode(self.progress_json)

    @cached_property
    def result(self) -> Any:
        """What the worker returned; None if nothing, or if the job did not succeed."""
        return documents.decode(self.result_json)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create, for `create_jobs`; the fields are those of `create_job`."""

    queue: str
    job_type: str
    payload: object = documents.EMPTY
    priority: int = 0
    max_attempts: int | None = None
    scheduled_for: datetime | None = None
    timeout: Span | None = None
    labels: Mapping[str, str] | None = None
    traceparent: str = ""
    tracestate: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedJob:
    """What became of one job of a batch: it has an id, or an error."""

    job_id: str | None
    error: TaskForgeError | None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker process as the server knows it: its session, and the jobs that it holds.

    `held_job_ids` are those of the oldest 100; `draining`: it gets no more jobs; `connected`: its
    stream is open; `expires_at`: when its leases end unless a heartbeat comes.
    """

    session_id: str
    project_id: str
    worker_id: str
    max_in_flight: int
    draining: bool
    connected: bool
    held_jobs: int
    held_job_ids: tuple[str, ...]
    created_at: datetime | None
    last_heartbeat_at: datetime | None
    expires_at: datetime | None
