"""What is asked of QueueService: making, changing and watching queues."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias, cast

from google.protobuf.field_mask_pb2 import FieldMask

from taskforge.v1 import job_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_sdk import calls, conversion
from taskforge_sdk.calls import Call, Listing, Page
from taskforge_sdk.errors import invalid
from taskforge_sdk.models import (
    JobStatus,
    PurgeResult,
    Queue,
    QueueSettings,
    QueueStats,
    SettingsChange,
)
from taskforge_sdk.requests.building import UNSET, Unset, bounded, narrowed, request

Changed: TypeAlias = QueueSettings | SettingsChange


@request
def create_queue(
    project_id: str,
    name: str,
    *,
    description: str = "",
    priority: int = 0,
    settings: QueueSettings | None = None,
) -> Call[Queue]:
    """Make a queue. Never repeated by itself.

    AlreadyExists (`QUEUE_NAME_TAKEN`), NotFound (its dead-letter queue).
    """
    message = pb.CreateQueueRequest(
        project_id=project_id,
        name=name,
        description=description,
        priority=priority,
        settings=None if settings is None else conversion.settings_message(settings),
    )
    return calls.CREATE_QUEUE.call(message, lambda answer: conversion.queue(answer.queue))


@request
def get_queue(project_id: str, queue: str) -> Call[Queue]:
    """Show a queue. NotFound."""
    message = pb.GetQueueRequest(project_id=project_id, queue=queue)
    return calls.GET_QUEUE.call(message, lambda answer: conversion.queue(answer.queue))


@request
def list_queues(project_id: str, *, page_size: int = 100) -> Listing[Queue]:
    """List the queues by name; pages are fetched as they are needed."""

    def page(token: str) -> Call[Page[Queue]]:
        message = pb.ListQueuesRequest(project_id=project_id, page_size=page_size, page_token=token)
        return calls.LIST_QUEUES.call(
            message,
            lambda answer: Page(
                [conversion.queue(each) for each in answer.queues], answer.next_page_token
            ),
        )

    return Listing(page)


@request
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
    """Change what is given and nothing else.

    A `QueueSettings` replaces all settings; a dict (`SettingsChange`) changes those it names, and
    None in it sets one back to its default. NotFound (also its dead-letter queue), AlreadyExists
    (`QUEUE_NAME_TAKEN`), PreconditionFailed (`DEAD_LETTER_CYCLE`).
    """
    message = pb.UpdateQueueRequest(project_id=project_id, queue=queue)
    mask: list[str] = []
    plain = {"name": name, "description": description, "priority": priority, "is_active": is_active}
    for field, value in plain.items():
        if value is not UNSET:
            setattr(message, field, value)
            mask.append(field)
    if isinstance(settings, QueueSettings):
        mask.append("settings")
        message.settings.CopyFrom(conversion.settings_message(settings))
    elif settings is not UNSET:
        unknown = settings.keys() - set(conversion.SETTING_FIELDS)
        if unknown:
            raise invalid("settings", f"there is no setting {', '.join(sorted(unknown))}")
        mask += [f"settings.{field}" for field in settings]
        message.settings.CopyFrom(conversion.settings_message(settings))
    message.update_mask.CopyFrom(FieldMask(paths=mask))
    return calls.UPDATE_QUEUE.call(message, lambda answer: conversion.queue(answer.queue))


@request
def pause_queue(
    project_id: str,
    queue: str,
    *,
    keep_accepting: bool = False,
    resume_at: datetime | None = None,
) -> Call[Queue]:
    """Stop handing out the queue's jobs and, unless `keep_accepting`, taking new ones. NotFound.

    Running jobs finish. The queue opens by itself at `resume_at`, or when it is resumed. Pausing a
    paused queue sets both anew.
    """
    message = pb.PauseQueueRequest(
        project_id=project_id,
        queue=queue,
        keep_accepting=keep_accepting,
        resume_at=conversion.timestamp_of(resume_at, "resume_at"),
    )
    return calls.PAUSE_QUEUE.call(message, lambda answer: conversion.queue(answer.queue))


@request
def resume_queue(project_id: str, queue: str) -> Call[Queue]:
    """Open a paused queue again. NotFound."""
    message = pb.ResumeQueueRequest(project_id=project_id, queue=queue)
    return calls.RESUME_QUEUE.call(message, lambda answer: conversion.queue(answer.queue))


@request
def delete_queue(project_id: str, queue: str) -> Call[None]:
    """Delete a queue without unfinished jobs. Never repeated by itself.

    NotFound, PreconditionFailed (`QUEUE_NOT_EMPTY`; `QUEUE_IN_USE` as another's dead-letter queue).
    """
    message = pb.DeleteQueueRequest(project_id=project_id, queue=queue)
    return calls.DELETE_QUEUE.call(message, lambda _: None)


@request
def queue_stats(project_id: str, queue: str) -> Call[QueueStats]:
    """Count the queue's jobs by status. NotFound."""
    message = pb.GetQueueStatsRequest(project_id=project_id, queue=queue)
    return calls.GET_QUEUE_STATS.call(message, conversion.queue_stats)


@request
def purge_queue(
    project_id: str, queue: str, statuses: Iterable[JobStatus], *, dry_run: bool = False
) -> Call[PurgeResult]:
    """Remove the queue's jobs of these statuses: waiting ones are cancelled, finished ones deleted.

    Running jobs are never touched. With `dry_run` they are only counted. It may take minutes, and
    has 10 of them. Repeated by itself when there was no answer; the answer then counts what the
    last repetition removed. What was removed before an error stays removed. NotFound.
    """
    message = pb.PurgeQueueRequest(
        project_id=project_id,
        queue=queue,
        # One a status, as the contract wants; IntEnum's numbers are the contract's.
        statuses=cast("list[job_pb2.JobStatus.ValueType]", sorted({int(one) for one in statuses})),
        dry_run=dry_run,
    )
    return calls.PURGE_QUEUE.call(message, conversion.purge_result)


@request
def redrive_jobs(
    project_id: str,
    queue: str,
    *,
    job_type: str | None = None,
    origin_queue: str | None = None,
    max_jobs: int | None = None,
    jobs_per_second: int | None = None,
    dry_run: bool = False,
) -> Call[int]:
    """Take waiting jobs of a dead-letter queue back to the queues they came from; how many.

    Each is the same job, with no attempt used and its `origin` kept. At most `max_jobs`, the oldest
    first; `jobs_per_second` become ready in each second, None: all at once. With `dry_run` they are
    only counted. It may take minutes, and has 10 of them. Never repeated by itself: a second call
    would have a bound and a pace of its own. What went back before an error stays there. NotFound.
    """
    message = pb.RedriveJobsRequest(
        project_id=project_id,
        queue=queue,
        job_type=narrowed(job_type, "job_type"),
        origin_queue=narrowed(origin_queue, "origin_queue"),
        max_jobs=bounded(max_jobs, "max_jobs"),
        jobs_per_second=bounded(jobs_per_second, "jobs_per_second"),
        dry_run=dry_run,
    )
    return calls.REDRIVE_JOBS.call(message, lambda answer: answer.redriven_jobs)
