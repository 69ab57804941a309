"""Values for the tests of the command."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from taskforge_sdk import Job, JobStatus, Queue, QueueSettings, WorkerInfo

NOON = datetime(2026, 11, 24, 12, 0, 0, 123456, UTC)


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


Taskforge = Callable[..., Outcome]


def a_queue(**changes: Any) -> Queue:
    values: dict[str, Any] = {
        "id": "0192a000-0000-7000-8000-000000000001",
        "project_id": "00000000-0000-7000-8000-000000000002",
        "name": "emails",
        "description": "",
        "priority": 3,
        "settings": QueueSettings(),
        "is_active": True,
        "created_at": NOON,
        "updated_at": NOON,
        "accepts_jobs": changes.get("is_active", True),
        "resume_at": None,
    }
    return Queue(**{**values, **changes})


def a_job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": "0192a000-0000-7000-8000-00000000000a",
        "queue_id": "0192a000-0000-7000-8000-000000000001",
        "project_id": "00000000-0000-7000-8000-000000000002",
        "job_type": "send-email",
        "payload_json": '{"to": "ann@example.org"}',
        "status": JobStatus.PENDING,
        "priority": 0,
        "max_attempts": 3,
        "attempt_count": 0,
        "scheduled_for": None,
        "timeout": None,
        "timeout_at": None,
        "created_at": NOON,
        "updated_at": NOON,
        "started_at": None,
        "completed_at": None,
        "worker_id": "",
        "progress_json": "",
        "result_json": "",
        "attempts": (),
        "labels": {},
        "traceparent": "",
        "tracestate": "",
        "cancel_requested_at": None,
        "origin": None,
        "dead_letter_job_id": "",
    }
    return Job(**{**values, **changes})


def a_worker(**changes: Any) -> WorkerInfo:
    values: dict[str, Any] = {
        "session_id": "0192a000-0000-7000-8000-0000000000ff",
        "project_id": "00000000-0000-7000-8000-000000000002",
        "worker_id": "host:7",
        "max_in_flight": 20,
        "draining": False,
        "connected": True,
        "held_jobs": 1,
        "held_job_ids": ("0192a000-0000-7000-8000-00000000000a",),
        "created_at": NOON,
        "last_heartbeat_at": NOON,
        "expires_at": None,
    }
    return WorkerInfo(**{**values, **changes})
