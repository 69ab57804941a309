"""What producers and people ask of JobService: creating, finding, cancelling and retrying jobs."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Final, cast

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import calls, conversion, documents
from taskforge_sdk.calls import Batch, Call, Listing, Page
from taskforge_sdk.errors import TaskForgeError, invalid
from taskforge_sdk.models import CreatedJob, Job, JobStats, JobStatus, NewJob, Span
from taskforge_sdk.requests.building import request

MAX_BATCH_JOBS: Final = 1_000
"""How many jobs one BatchCreateJobs takes, by the contract."""

MAX_BATCH_BYTES: Final = 3_500_000
"""Where a batch is cut: a request is at most 4 MiB, and one more job has up to 1 MiB less."""


@request
def create_job(
    project_id: str,
    queue: str,
    job_type: str,
    payload: object = documents.EMPTY,
    *,
    priority: int = 0,
    max_attempts: int | None = None,
    scheduled_for: datetime | None = None,
    timeout: Span | None = None,
    labels: Mapping[str, str] | None = None,
    traceparent: str = "",
    tracestate: str = "",
    request_id: str | None = None,
) -> Call[Job]:
    """Create a job; once it is answered, it is on disk. Safe to repeat, and repeated by itself.

    `payload` is anything that is JSON, or JSON text as `JsonText`. With a `request_id` of yours,
    calling again within a day returns the first job; without one, each call makes a job of its own.
    NotFound, PreconditionFailed (`QUEUE_PAUSED`), InvalidRequest (`INVALID_JSON`,
    `PAYLOAD_TOO_LARGE`), AlreadyExists (`REQUEST_ID_REUSED`).
    """
    new_job = NewJob(
        queue, job_type, payload, priority, max_attempts, scheduled_for, timeout, labels,
        traceparent, tracestate, request_id or str(uuid.uuid4()),
    )  # fmt: skip
    message = pb.CreateJobRequest(project_id=project_id, job=conversion.job_spec(new_job))
    return calls.CREATE_JOB.call(message, lambda answer: conversion.job(answer.job))


@request
def create_jobs(
    project_id: str,
    new_jobs: Iterable[NewJob],
    *,
    all_or_nothing: bool = False,
    request_id: str | None = None,
) -> list[Batch[CreatedJob]]:
    """Create many jobs; one result a job, in their order, each with an id or an error.

    Sent in batches of at most 1,000 jobs and 3.5 MB, each a transaction. If the first batch fails
    as a whole, that is raised; if a later one does, its jobs and those after it carry the error.
    With `all_or_nothing` all are created or none, and the first error is raised; they must fit in
    one batch. A `request_id` of yours (at most 120 characters) makes the call repeatable.
    """
    specs = [conversion.job_spec(job) for job in new_jobs]
    parts = list(_cut(specs))
    if all_or_nothing and len(parts) > 1:
        raise invalid("jobs", f"{len(specs)} jobs do not fit in one batch, as all_or_nothing needs")
    base = request_id or str(uuid.uuid4())
    batches: list[Batch[CreatedJob]] = []
    for number, part in enumerate(parts, start=1):
        message = pb.BatchCreateJobsRequest(
            project_id=project_id,
            jobs=part,
            request_id=base if len(parts) == 1 else f"{base}/{number}",
            all_or_nothing=all_or_nothing,
        )
        call = calls.BATCH_CREATE_JOBS.call(
            message, lambda answer: [conversion.created_job(each) for each in answer.results]
        )
        batches.append(Batch(call, partial(_none_created, len(part))))
    return batches


def _cut(specs: list[job_pb2.JobSpec]) -> Iterator[list[job_pb2.JobSpec]]:
    part: list[job_pb2.JobSpec] = []
    size = 0
    for spec in specs:
        spec_bytes = spec.ByteSize() + 8  # the field's tag and length
        if part and (len(part) == MAX_BATCH_JOBS or size + spec_bytes > MAX_BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(spec)
        size += spec_bytes
    if part:
        yield part


def _none_created(count: int, error: TaskForgeError) -> list[CreatedJob]:
    return [CreatedJob(job_id=None, error=error)] * count


@request
def get_job(project_id: str, job_id: str) -> Call[Job]:
    """Show a job, whether it waits, runs or is finished. NotFound."""
    message = pb.GetJobRequest(project_id=project_id, job_id=job_id)
    return calls.GET_JOB.call(message, lambda answer: conversion.job(answer.job))


@request
def list_jobs(
    project_id: str,
    *,
    queue: str | None = None,
    status: JobStatus | None = None,
    job_type: str | None = None,
    labels: Mapping[str, str] | None = None,
    scheduled_from: datetime | None = None,
    scheduled_to: datetime | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    page_size: int = 100,
) -> Listing[Job]:
    """List the jobs that meet every filter, newest first; pages are fetched as they are needed.

    `…_from` is inclusive, `…_to` is not. NotFound.
    """
    message = pb.ListJobsRequest(
        project_id=project_id,
        queue=queue or "",
        status=cast("job_pb2.JobStatus.ValueType", int(status or 0)),
        job_type=job_type or "",
        labels=labels,
        scheduled_from=conversion.timestamp_of(scheduled_from, "scheduled_from"),
        scheduled_to=conversion.timestamp_of(scheduled_to, "scheduled_to"),
        created_from=conversion.timestamp_of(created_from, "created_from"),
        created_to=conversion.timestamp_of(created_to, "created_to"),
        page_size=page_size,
    )

    def page(token: str) -> Call[Page[Job]]:
        message.page_token = token
        return calls.LIST_JOBS.call(
            message,
            lambda answer: Page(
                [conversion.job(each) for each in answer.jobs], answer.next_page_token
            ),
        )

    return Listing(page)


@request
def job_stats(project_id: str, queue: str | None = None) -> Call[JobStats]:
    """Count the jobs of a queue, or of the project, by status. NotFound."""
    message = pb.GetJobStatsRequest(project_id=project_id, queue=queue or "")
    return calls.GET_JOB_STATS.call(message, conversion.job_stats)


@request
def cancel_job(project_id: str, job_id: str, *, interrupt_running: bool = False) -> Call[Job]:
    """Cancel a job that waits, at once, and one that runs if asked to, by telling its worker.

    NotFound, PreconditionFailed (`JOB_RUNNING`, `JOB_FINISHED`).
    """
    message = pb.CancelJobRequest(
        project_id=project_id, job_id=job_id, interrupt_running=interrupt_running
    )
    return calls.CANCEL_JOB.call(message, lambda answer: conversion.job(answer.job))


@request
def retry_job(project_id: str, job_id: str, *, additional_attempts: int = 0) -> Call[Job]:
    """Make a FAILED job ready again. Never repeated by itself.

    NotFound, PreconditionFailed (`JOB_NOT_FAILED`, `NO_ATTEMPTS_LEFT`, `JOB_DEAD_LETTERED`).
    """
    message = pb.RetryJobRequest(
        project_id=project_id, job_id=job_id, additional_attempts=additional_attempts
    )
    return calls.RETRY_JOB.call(message, lambda answer: conversion.job(answer.job))
