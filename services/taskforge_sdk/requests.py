"""What each method of the clients asks for: arguments in, a `Call` out.

These functions are the methods' signatures and manual; the clients add only the transport. Where a
method takes a `queue`, it is the queue's id or its name within the project. Each raises
InvalidRequest for what can never be sent, such as a payload that is no JSON.
"""

import enum
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial, wraps
from typing import Final, ParamSpec, TypeAlias, TypeVar, cast

from google.protobuf.field_mask_pb2 import FieldMask

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as jobs
from taskforge.v1 import queue_service_pb2 as queues
from taskforge_sdk import calls, conversion, documents
from taskforge_sdk.calls import Batch, Call, Listing, Page
from taskforge_sdk.errors import InvalidRequest, TaskForgeError, invalid
from taskforge_sdk.models import (
    CreatedJob,
    Job,
    JobStats,
    JobStatus,
    NewJob,
    Queue,
    QueueSettings,
    QueueStats,
    SettingsChange,
    Span,
)  # fmt: skip

MAX_BATCH_JOBS: Final = 1_000
"""How many jobs one BatchCreateJobs takes, by the contract."""

MAX_BATCH_BYTES: Final = 3_500_000
"""Where a batch is cut: a request is at most 4 MiB, and one more job has up to 1 MiB less."""


class Unset(enum.Enum):
    """Stands for an argument that is not given, where None has a meaning of its own."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
Changed: TypeAlias = QueueSettings | SettingsChange


P = ParamSpec("P")
Asked = TypeVar("Asked")


def _request(build: Callable[P, Asked]) -> Callable[P, Asked]:
    """Marks what builds a request: what no message can hold is an InvalidRequest."""

    @wraps(build)
    def building(*args: P.args, **kwargs: P.kwargs) -> Asked:
        try:
            return build(*args, **kwargs)
        except InvalidRequest:
            raise
        except ValueError as error:
            raise invalid("request", str(error)) from error

    return building


@_request
def create_queue(
    project_id: str,
    name: str,
    *,
    description: str = "",
    priority: int = 0,
    settings: QueueSettings | None = None,
) -> Call[Queue]:
    """Make a queue. AlreadyExists (`QUEUE_NAME_TAKEN`). Never repeated by itself."""
    request = queues.CreateQueueRequest(
        project_id=project_id,
        name=name,
        description=description,
        priority=priority,
        settings=None if settings is None else conversion.settings_message(settings),
    )
    return calls.CREATE_QUEUE.call(request, lambda answer: conversion.queue(answer.queue))


@_request
def get_queue(project_id: str, queue: str) -> Call[Queue]:
    """Show a queue. NotFound."""
    request = queues.GetQueueRequest(project_id=project_id, queue=queue)
    return calls.GET_QUEUE.call(request, lambda answer: conversion.queue(answer.queue))


@_request
def list_queues(project_id: str, *, page_size: int = 100) -> Listing[Queue]:
    """List the queues by name; pages are fetched as they are needed."""

    def page(token: str) -> Call[Page[Queue]]:
        request = queues.ListQueuesRequest(
            project_id=project_id, page_size=page_size, page_token=token
        )
        return calls.LIST_QUEUES.call(
            request,
            lambda answer: Page(
                [conversion.queue(each) for each in answer.queues], answer.next_page_token
            ),
        )

    return Listing(page)


@_request
def update_queue(
    project_id: str,
    queue: str,
    *,
    name: str | Unset = UNSET,
    description: str | Unset = UNSET,
    priority: int | Unset = UNSET,
    is_active: bool | Unset = UNSET,
    settings: Changed | Unset = UNSET,
) -> Call[Queue]:
    """Change what is given and nothing else. NotFound, AlreadyExists (`QUEUE_NAME_TAKEN`).

    A `QueueSettings` replaces all settings; a dict (`SettingsChange`) changes those it names, and
    None in it sets one back to its default.
    """
    request = queues.UpdateQueueRequest(project_id=project_id, queue=queue)
    mask: list[str] = []
    plain = {"name": name, "description": description, "priority": priority, "is_active": is_active}
    for field, value in plain.items():
        if value is not UNSET:
            setattr(request, field, value)
            mask.append(field)
    if isinstance(settings, QueueSettings):
        mask.append("settings")
        request.settings.CopyFrom(conversion.settings_message(settings))
    elif settings is not UNSET:
        unknown = settings.keys() - set(conversion.SETTING_FIELDS)
        if unknown:
            raise invalid("settings", f"there is no setting {', '.join(sorted(unknown))}")
        mask += [f"settings.{field}" for field in settings]
        request.settings.CopyFrom(conversion.settings_message(settings))
    request.update_mask.CopyFrom(FieldMask(paths=mask))
    return calls.UPDATE_QUEUE.call(request, lambda answer: conversion.queue(answer.queue))


@_request
def pause_queue(project_id: str, queue: str) -> Call[Queue]:
    """Stop handing out the queue's jobs and taking new ones. NotFound."""
    request = queues.PauseQueueRequest(project_id=project_id, queue=queue)
    return calls.PAUSE_QUEUE.call(request, lambda answer: conversion.queue(answer.queue))


@_request
def resume_queue(project_id: str, queue: str) -> Call[Queue]:
    """Open a paused queue again. NotFound."""
    request = queues.ResumeQueueRequest(project_id=project_id, queue=queue)
    return calls.RESUME_QUEUE.call(request, lambda answer: conversion.queue(answer.queue))


@_request
def delete_queue(project_id: str, queue: str) -> Call[None]:
    """Delete a queue without unfinished jobs. NotFound, PreconditionFailed (`QUEUE_NOT_EMPTY`)."""
    request = queues.DeleteQueueRequest(project_id=project_id, queue=queue)
    return calls.DELETE_QUEUE.call(request, lambda _: None)


@_request
def queue_stats(project_id: str, queue: str) -> Call[QueueStats]:
    """Count the queue's jobs by status. NotFound."""
    request = queues.GetQueueStatsRequest(project_id=project_id, queue=queue)
    return calls.GET_QUEUE_STATS.call(request, conversion.queue_stats)


@_request
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
    request = jobs.CreateJobRequest(project_id=project_id, job=conversion.job_spec(new_job))
    return calls.CREATE_JOB.call(request, lambda answer: conversion.job(answer.job))


@_request
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
        request = jobs.BatchCreateJobsRequest(
            project_id=project_id,
            jobs=part,
            request_id=base if len(parts) == 1 else f"{base}/{number}",
            all_or_nothing=all_or_nothing,
        )
        call = calls.BATCH_CREATE_JOBS.call(
            request, lambda answer: [conversion.created_job(each) for each in answer.results]
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


@_request
def get_job(project_id: str, job_id: str) -> Call[Job]:
    """Show a job, whether it waits, runs or is finished. NotFound."""
    request = jobs.GetJobRequest(project_id=project_id, job_id=job_id)
    return calls.GET_JOB.call(request, lambda answer: conversion.job(answer.job))


@_request
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
    request = jobs.ListJobsRequest(
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
        request.page_token = token
        return calls.LIST_JOBS.call(
            request,
            lambda answer: Page(
                [conversion.job(each) for each in answer.jobs], answer.next_page_token
            ),
        )

    return Listing(page)


@_request
def job_stats(project_id: str, queue: str | None = None) -> Call[JobStats]:
    """Count the jobs of a queue, or of the project, by status. NotFound."""
    request = jobs.GetJobStatsRequest(project_id=project_id, queue=queue or "")
    return calls.GET_JOB_STATS.call(request, conversion.job_stats)


@_request
def cancel_job(project_id: str, job_id: str, *, interrupt_running: bool = False) -> Call[Job]:
    """Cancel a job that waits, at once, and one that runs if asked to, by telling its worker.

    NotFound, PreconditionFailed (`JOB_RUNNING`, `JOB_FINISHED`).
    """
    request = jobs.CancelJobRequest(
        project_id=project_id, job_id=job_id, interrupt_running=interrupt_running
    )
    return calls.CANCEL_JOB.call(request, lambda answer: conversion.job(answer.job))


@_request
def retry_job(project_id: str, job_id: str, *, additional_attempts: int = 0) -> Call[Job]:
    """Make a FAILED job ready again. Never repeated by itself.

    NotFound, PreconditionFailed (`JOB_NOT_FAILED`, `NO_ATTEMPTS_LEFT`).
    """
    request = jobs.RetryJobRequest(
        project_id=project_id, job_id=job_id, additional_attempts=additional_attempts
    )
    return calls.RETRY_JOB.call(request, lambda answer: conversion.job(answer.job))
