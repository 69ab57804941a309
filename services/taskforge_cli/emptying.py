"""`taskforge queue purge` and `queue redrive`: what takes many jobs out of a queue at once."""

import enum
from typing import Annotated

import typer

from taskforge_cli import documents, rendering
from taskforge_cli.asking import ask, on_terminal
from taskforge_cli.connecting import queue_calls
from taskforge_cli.options import AsJson, QueueAddress, QueueName, Yes
from taskforge_sdk import JobStatus, PurgeResult

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count, change nothing.")]


class Removable(enum.StrEnum):
    """A status whose jobs can be removed: every one but that of the running ones."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


def purge(
    queue: QueueName,
    status: Annotated[
        list[Removable],
        typer.Option(
            "--status",
            case_sensitive=False,
            metavar="STATUS",
            help="Of which jobs: pending, scheduled, succeeded, failed or cancelled; may be given"
            " several times.",
            show_default=False,
        ),
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Remove a queue's jobs: those that wait are cancelled, finished ones deleted."""
    statuses = [JobStatus[each.name] for each in status]
    with queue_calls(queue_address) as client:
        if not dry_run and not yes and on_terminal():
            planned = client.purge_queue(queue, statuses, dry_run=True)
            ask(f"{_removal(planned, ('Cancel', 'delete'))} of {queue}?")
        purged = client.purge_queue(queue, statuses, dry_run=dry_run)
    if as_json:
        rendering.print_json(documents.purge_document(purged, dry_run=dry_run))
    else:
        words = ("Would cancel", "delete") if dry_run else ("Cancelled", "deleted")
        rendering.print_line(f"{_removal(purged, words)} of {queue}.")


def redrive(
    queue: QueueName,
    job_type: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only jobs of this type.")
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option("--origin", metavar="QUEUE", help="Only jobs that came from this queue."),
    ] = None,
    maximum: Annotated[
        int | None,
        typer.Option("--max", metavar="N", min=1, help="At most so many jobs, oldest first."),
    ] = None,
    per_second: Annotated[
        int | None,
        typer.Option(
            "--per-second", metavar="N", min=1, help="How many become ready in each second."
        ),
    ] = None,
    dry_run: DryRun = False,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Take the jobs that wait in a dead-letter queue back to where they failed."""
    with queue_calls(queue_address) as client:
        jobs = client.redrive_jobs(
            queue,
            job_type=job_type,
            origin_queue=origin,
            max_jobs=maximum,
            jobs_per_second=per_second,
            dry_run=dry_run,
        )
    if as_json:
        rendering.print_json({"redriven_jobs": jobs, "dry_run": dry_run})
    else:
        verb = "Would take" if dry_run else "Took"
        rendering.print_line(f"{verb} {jobs:,} {'job' if jobs == 1 else 'jobs'} of {queue} back.")


def _removal(result: PurgeResult, verbs: tuple[str, str]) -> str:
    """`Cancelled 3 waiting and deleted 1,204 finished jobs`."""
    return (
        f"{verbs[0]} {result.cancelled_jobs:,} waiting"
        f" and {verbs[1]} {result.deleted_jobs:,} finished jobs"
    )
