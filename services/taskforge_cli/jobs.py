"""`taskforge job …`: putting jobs in, and seeing what became of them."""

import enum
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated

import typer

from taskforge_cli import documents, rendering
from taskforge_cli.connecting import job_calls
from taskforge_cli.options import (
    AsJson,
    CreatedFrom,
    CreatedTo,
    JobAddress,
    Labels,
    Limit,
    PageSize,
    QueueName,
    ScheduledFrom,
    ScheduledTo,
    Timeout,
    duration_option,
    time_option,
)
from taskforge_cli.parsing import parse_labels, point_in_time, read_payload
from taskforge_sdk import Job, JobStatus

app = typer.Typer(help="Create jobs, and see what became of them.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


class Status(enum.StrEnum):
    """A status as a filter."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@app.command()
def create(
    queue: QueueName,
    job_type: Annotated[str, typer.Argument(metavar="TYPE", help="What kind of work it is.")],
    payload: Annotated[
        str,
        typer.Option(metavar="JSON", help="A JSON document, @FILE, or - for standard input."),
    ] = "{}",
    priority: Annotated[int, typer.Option(help="0 to 9, 9 first.")] = 0,
    label: Labels = None,
    delay: Annotated[
        timedelta | None, duration_option("--delay", "Not before this much time has passed.")
    ] = None,
    at: Annotated[datetime | None, time_option("--at", "Not before this time.")] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Attempts in all. Default: as the queue says.", show_default=False
        ),
    ] = None,
    timeout: Timeout = None,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Makes the command repeatable: the same id within a day returns the first job.",
            show_default=False,
        ),
    ] = None,
    job_address: JobAddress = None,
    as_json: AsJson = False,
) -> None:
    """Create a job. Once this returns, the job is on disk."""
    document = read_payload(payload)
    labels = parse_labels(label or [])
    scheduled_for = point_in_time(delay, at, "--delay", "--at")
    with job_calls(job_address) as client:
        job = client.create_job(
            queue,
            job_type,
            document,
            priority=priority,
            max_attempts=max_attempts,
            scheduled_for=scheduled_for,
            timeout=timeout,
            labels=labels,
            request_id=request_id,
        )
    _show(job, as_json, f"Created the job {job.id} ({job.status.name}).")


@app.command()
def show(job: JobId, job_address: JobAddress = None, as_json: AsJson = False) -> None:
    """Show a job, its result and the history of its attempts."""
    with job_calls(job_address) as client:
        found = client.get_job(job)
    if as_json:
        rendering.print_json(documents.job_document(found))
    else:
        rendering.print_job(found)


@app.command("list")
def list_(
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="QUEUE", help="Only jobs of this queue.")
    ] = None,
    status: Annotated[
        Status | None, typer.Option(case_sensitive=False, help="Only jobs of this status.")
    ] = None,
    job_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")
    ] = None,
    label: Labels = None,
    created_from: CreatedFrom = None,
    created_to: CreatedTo = None,
    scheduled_from: ScheduledFrom = None,
    scheduled_to: ScheduledTo = None,
    limit: Limit = 50,
    page_size: PageSize = None,
    job_address: JobAddress = None,
    as_json: AsJson = False,
) -> None:
    """List jobs that meet every filter, newest first."""
    labels = parse_labels(label or [])
    with job_calls(job_address) as client:
        listed = client.list_jobs(
            queue=queue,
            status=None if status is None else JobStatus[status.name],
            job_type=job_type,
            labels=labels,
            scheduled_from=scheduled_from,
            scheduled_to=scheduled_to,
            created_from=created_from,
            created_to=created_to,
            # One more than is shown tells whether there are others.
            page_size=min(limit + 1, 1000) if page_size is None else page_size,
        )
        jobs = list(islice(listed, limit + 1))
    shown = jobs[:limit]
    if as_json:
        rendering.print_json(documents.jobs_document(shown))
    else:
        rendering.print_jobs(shown, more=len(jobs) > limit)


@app.command()
def cancel(
    job: JobId,
    interrupt_running: Annotated[
        bool, typer.Option("--interrupt-running", help="Stop it also if it runs.")
    ] = False,
    job_address: JobAddress = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a job that waits; one that runs only if asked to, by telling its worker."""
    with job_calls(job_address) as client:
        cancelled = client.cancel_job(job, interrupt_running=interrupt_running)
    if cancelled.status is JobStatus.PROCESSING:
        line = f"Asked the worker of {cancelled.id} to stop."
    else:
        line = f"Cancelled the job {cancelled.id}."
    _show(cancelled, as_json, line)


@app.command()
def retry(
    job: JobId,
    additional_attempts: Annotated[
        int, typer.Option(metavar="N", help="How many attempts to add.")
    ] = 0,
    job_address: JobAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make a failed job ready again."""
    with job_calls(job_address) as client:
        retried = client.retry_job(job, additional_attempts=additional_attempts)
    _show(retried, as_json, f"The job {retried.id} is {retried.status.name} again.")


@app.command()
def stats(
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="QUEUE", help="Default: the whole project.")
    ] = None,
    job_address: JobAddress = None,
    as_json: AsJson = False,
) -> None:
    """Count jobs by status."""
    with job_calls(job_address) as client:
        found = client.job_stats(queue)
    if as_json:
        rendering.print_json(documents.job_stats_document(found))
    else:
        rendering.print_job_counts(queue or "the project", found.counts)


def _show(job: Job, as_json: bool, line: str) -> None:
    if as_json:
        rendering.print_json(documents.job_document(job))
    else:
        rendering.print_line(line)
