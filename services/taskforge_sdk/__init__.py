"""What Python programs import to use TaskForge: the clients and the worker."""

from taskforge_sdk.blocking import BlockingClient
from taskforge_sdk.client import Client
from taskforge_sdk.context import JobContext
from taskforge_sdk.documents import JsonText
from taskforge_sdk.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    LeaseLost,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    ServerError,
    StreamReplaced,
    TaskForgeError,
    Unauthenticated,
    Unavailable,
)
from taskforge_sdk.models import (
    AttemptOutcome,
    CreatedJob,
    FailedAttempt,
    Job,
    JobCounts,
    JobStats,
    JobStatus,
    NewJob,
    Queue,
    QueueSettings,
    QueueStats,
    SettingsChange,
)
from taskforge_sdk.outcomes import Fatal, JobCancelled, Retry, Snooze
from taskforge_sdk.retrying import RetryPolicy
from taskforge_sdk.worker import Worker

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AttemptOutcome",
    "BlockingClient",
    "Client",
    "CreatedJob",
    "DeadlineExceeded",
    "FailedAttempt",
    "Fatal",
    "FieldViolation",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobCounts",
    "JobStats",
    "JobStatus",
    "JsonText",
    "LeaseLost",
    "NewJob",
    "NotFound",
    "PermissionDenied",
    "PreconditionFailed",
    "Queue",
    "QueueSettings",
    "QueueStats",
    "ResourceExhausted",
    "Retry",
    "RetryPolicy",
    "ServerError",
    "SettingsChange",
    "Snooze",
    "StreamReplaced",
    "TaskForgeError",
    "Unauthenticated",
    "Unavailable",
    "Worker",
]
