"""What a handler is given: its job, and the ways to hear from and speak to TaskForge."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from taskforge.v1 import job_pb2
from taskforge_sdk import conversion, documents
from taskforge_sdk.errors import invalid
from taskforge_sdk.holding import Held, Stop
from taskforge_sdk.models import JobOrigin
from taskforge_sdk.outcomes import JobCancelled

MAX_PROGRESS_BYTES: Final = 16 * 1024


class JobContext:
    """The job that a handler runs.

    Handlers may run more than once for the same job (after a lost lease, a retry): use `id` to make
    what they do idempotent.
    """

    def __init__(self, held: Held, on_progress: Callable[[], None]) -> None:
        self._held = held
        self._job: job_pb2.Job = held.job
        self._on_progress = on_progress

    @property
    def id(self) -> str:
        """UUID of the job, the same in every attempt."""
        return self._job.id

    @property
    def job_type(self) -> str:
        return self._job.job_type

    @property
    def queue_id(self) -> str:
        return self._job.queue_id

    @property
    def project_id(self) -> str:
        return self._job.project_id

    @cached_property
    def payload(self) -> Any:
        """The payload's value."""
        return documents.decode(self._job.payload)

    @property
    def payload_json(self) -> str:
        """The payload as it was sent."""
        return self._job.payload

    @property
    def attempt(self) -> int:
        """The how-manieth attempt this is, from 1."""
        return self._job.attempt_count

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has in all."""
        return self._job.max_attempts

    @property
    def priority(self) -> int:
        return self._job.priority

    @property
    def labels(self) -> Mapping[str, str]:
        return self._job.labels

    @property
    def worker_id(self) -> str:
        return self._job.worker_id

    @property
    def created_at(self) -> datetime:
        """When the job was created, by the database's clock."""
        return conversion.moment(self._job.created_at)

    @property
    def origin(self) -> JobOrigin | None:
        """The failed job for which this one was made in a dead-letter queue; None for any other.

        Kept when the job is redriven.
        """
        return conversion.origin(self._job)

    @property
    def traceparent(self) -> str:
        """W3C trace context of the producer."""
        return self._job.traceparent

    @property
    def tracestate(self) -> str:
        return self._job.tracestate

    @property
    def deadline(self) -> float | None:
        """When the attempt times out, by `time.monotonic()`; None if it has no timeout."""
        return self._held.deadline

    def time_left(self) -> timedelta | None:
        """How long the attempt may still run, not below zero; None if it has no timeout."""
        if self._held.deadline is None:
            return None
        return timedelta(seconds=max(0.0, self._held.deadline - time.monotonic()))

    @property
    def cancelled(self) -> bool:
        """Whether the handler is to stop, for whatever reason: cancelled, lost, timed out, leaving.

        An async handler is cancelled besides; one in a thread must look here from time to time.
        """
        return self._held.stop is not None

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled, which the handler should let pass, if it is to stop."""
        if self._held.stop is not None:
            raise JobCancelled(self._held.stop.value)

    @property
    def cancellation_requested(self) -> bool:
        """Whether somebody cancelled the job, as opposed to the other reasons to stop."""
        return self._held.stop is Stop.CANCELLED

    def set_progress(self, progress: object) -> None:
        """Report how far the job is: anything that is JSON, at most 16 KiB. May be called anywhere.

        It travels with the next heartbeat, within about a second; of several in between, the last.
        """
        text = documents.encode(progress, "progress")
        if len(text.encode()) > MAX_PROGRESS_BYTES:
            raise invalid("progress", f"is larger than {MAX_PROGRESS_BYTES} bytes")
        self._held.progress = text
        self._on_progress()
