"""Queues, jobs and workers as tables for people, on stdout."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from taskforge_cli.documents import to_json
from taskforge_sdk import (
    Job,
    JobCounts,
    JobOrigin,
    JobStatus,
    PriorityDelays,
    Queue,
    QueueSettings,
    QueueStats,
    WorkerInfo,
)

_STYLES = {
    JobStatus.PENDING: "cyan",
    JobStatus.SCHEDULED: "blue",
    JobStatus.PROCESSING: "yellow",
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "magenta",
}

# Wide enough for every line: a file or a pipe has no edge.
_UNBOUNDED = 100_000


def make_console() -> Console:
    """The console of a command; what is not a terminal gets plain text that is never cut."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=_UNBOUNDED, color_system=None)


def print_rich(renderable: RenderableType) -> None:
    """A table; in a file or a pipe its lines end where their last word does."""
    console = make_console()
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as capture:
        console.print(renderable)
    for line in capture.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(to_json(document) + "\n")


def print_line(text: str) -> None:
    """One line on stdout, as it is: no word in it is taken for a style."""
    make_console().print(Text(text))


def print_queues(queues: Sequence[Queue]) -> None:
    """A table of queues."""
    if not queues:
        print_line("There is no queue.")
        return
    table = new_table("NAME", "PRIORITY", "STATE", "CREATED", "DESCRIPTION")
    for queue in queues:
        table.add_row(
            Text(queue.name),
            str(queue.priority),
            _queue_state(queue),
            format_time(queue.created_at),
            Text(queue.description),
        )
    print_rich(table)


def print_queue(queue: Queue, *, dead_letter_queue: Queue | None = None) -> None:
    """A queue with all that is known of it, and its dead-letter queue by its name too."""
    dead_letters = queue.settings.dead_letter_queue_id or "(none)"
    if dead_letter_queue is not None:
        dead_letters = f"{dead_letter_queue.name} ({dead_letter_queue.id})"
    rows: list[tuple[str, str | Text]] = [
        ("Queue", queue.name),
        ("Id", queue.id),
        ("State", _queue_state(queue)),
        *([("Resumes", format_time(queue.resume_at))] if queue.resume_at else []),
        ("Priority", str(queue.priority)),
        ("Description", queue.description or "-"),
        ("Created", format_time(queue.created_at)),
        ("Updated", format_time(queue.updated_at)),
        *_settings_rows(queue.settings),
        ("Dead-letter queue", dead_letters),
    ]
    print_pairs(rows)


def print_queue_stats(name: str, stats: QueueStats) -> None:
    """A queue's jobs by status."""
    age = stats.oldest_ready_age
    print_pairs(
        [
            ("Queue", name),
            ("State", _state(stats.is_active)),
            *_counts_rows(stats.counts),
            ("Oldest ready job", "-" if age is None else f"waits {format_duration(age)}"),
        ]
    )


def print_job_counts(scope: str, counts: JobCounts) -> None:
    """The jobs of a queue or a project by status."""
    print_pairs([("Jobs of", scope), *_counts_rows(counts)])


def print_jobs(jobs: Sequence[Job], *, more: bool) -> None:
    """A table of jobs; `more`: there are others that are not shown."""
    if not jobs:
        print_line("There is no such job.")
        return
    table = new_table("ID", "TYPE", "STATUS", "PRIORITY", "ATTEMPTS", "CREATED", "WORKER")
    for job in jobs:
        table.add_row(
            job.id,
            Text(job.job_type),
            _status(job.status),
            str(job.priority),
            f"{job.attempt_count}/{job.max_attempts}",
            format_time(job.created_at),
            Text(job.worker_id or "-"),
        )
    print_rich(table)
    if more:
        print_line(f"These are the newest {len(jobs)}; --limit shows more.")


def print_job(job: Job) -> None:
    """A job with all that is known of it, its history last."""
    rows: list[tuple[str, str | Text]] = [
        ("Job", job.id),
        ("Status", _status(job.status)),
        ("Type", job.job_type),
        ("Queue", job.queue_id),
        ("Priority", str(job.priority)),
        ("Attempts", f"{job.attempt_count} of {job.max_attempts}"),
        ("Payload", job.payload_json),
        ("Result", job.result_json),
        ("Progress", job.progress_json),
        ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))),
        ("Worker", job.worker_id),
        ("Timeout", "" if job.timeout is None else format_duration(job.timeout)),
        ("Created", format_time(job.created_at)),
        ("Scheduled for", format_time(job.scheduled_for)),
        ("Started", format_time(job.started_at)),
        ("Times out", format_time(job.timeout_at)),
        ("Cancel asked", format_time(job.cancel_requested_at)),
        ("Completed", format_time(job.completed_at)),
        ("Trace", job.traceparent),
        ("Origin", "" if job.origin is None else _origin(job.origin)),
        ("Dead-letter job", job.dead_letter_job_id),
    ]
    print_pairs([(name, value) for name, value in rows if value])
    _print_history(job)


def print_workers(workers: Sequence[WorkerInfo]) -> None:
    """A table of workers."""
    if not workers:
        print_line("There is no worker.")
        return
    table = new_table("SESSION", "WORKER", "STATE", "HELD", "AT MOST", "HEARTBEAT", "LEASES END")
    for worker in workers:
        table.add_row(
            worker.session_id,
            Text(worker.worker_id or "-"),
            _worker_state(worker),
            str(worker.held_jobs),
            str(worker.max_in_flight),
            format_time(worker.last_heartbeat_at) or "-",
            format_time(worker.expires_at) or "-",
        )
    print_rich(table)


def format_time(time: datetime | None) -> str:
    """`2026-11-24 05:10:41.123 UTC`; nothing for None."""
    if time is None:
        return ""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def format_duration(duration: timedelta) -> str:
    """`90 ms`, `1.5 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    seconds = duration.total_seconds()
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    for large, small, unit, part in ((86400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if seconds >= large:
            rest = int(seconds % large) // small
            return f"{int(seconds) // large} {unit}" + (f" {rest} {part}" if rest else "")
    rest = int(seconds % 60)
    return f"{int(seconds) // 60} min" + (f" {rest} s" if rest else "")


def _print_history(job: Job) -> None:
    """What became of each attempt, the last one included."""
    table = new_table("ATTEMPT", "STARTED", "TOOK", "WORKER", "OUTCOME", "MESSAGE")
    for attempt in job.attempts:
        table.add_row(
            str(attempt.number),
            format_time(attempt.started_at),
            _took(attempt.started_at, attempt.ended_at),
            Text(attempt.worker_id or "-"),
            Text(attempt.outcome.name, style="red"),
            Text(attempt.message),
        )
    if job.status in {JobStatus.PROCESSING, JobStatus.SUCCEEDED}:
        table.add_row(
            str(job.attempt_count),
            format_time(job.started_at),
            _took(job.started_at, job.completed_at),
            Text(job.worker_id or "-"),
            _status(job.status),
            "",
        )
    if table.row_count:
        print_line("")
        print_rich(table)


def _took(start: datetime | None, end: datetime | None) -> str:
    return "" if start is None or end is None else format_duration(end - start)


def _settings_rows(settings: QueueSettings) -> list[tuple[str, str | Text]]:
    """The settings; a default stands in brackets, as the contract states it."""

    def duration(value: timedelta | None, default: str) -> str:
        return default if value is None else format_duration(value)

    def number(value: float | None, default: str) -> str:
        return default if value is None else f"{value:,g}"

    return [
        ("Max retries", number(settings.max_retries, "(2)")),
        ("Timeout", duration(settings.timeout, "(no limit)")),
        ("Retry delay", duration(settings.retry_delay, "(5 s)")),
        ("Max retry delay", duration(settings.max_retry_delay, "(1 h)")),
        ("Backoff multiplier", number(settings.backoff_multiplier, "(2)")),
        ("Retry jitter", number(settings.retry_jitter, "(0.1)")),
        ("Max payload bytes", number(settings.max_payload_bytes, "(262,144)")),
        ("Max concurrent jobs", number(settings.max_concurrent_jobs, "(no limit)")),
        ("Rate limit per minute", number(settings.rate_limit_per_minute, "(no limit)")),
        ("Delay by priority", _delays(settings.delay_by_priority)),
    ]


def _delays(delays: PriorityDelays | None) -> str:
    if delays is None:
        return "(none)"
    bands = (
        ("low", delays.low, "(30 s)"),
        ("medium", delays.medium, "(10 s)"),
        ("high", delays.high, "(5 s)"),
        ("urgent", delays.urgent, "(0 ms)"),
    )
    return ", ".join(
        f"{band} {default if delay is None else format_duration(delay)}"
        for band, delay, default in bands
    )


def _counts_rows(counts: JobCounts) -> list[tuple[str, str | Text]]:
    return [
        ("Pending", f"{counts.pending:,}"),
        ("Scheduled", f"{counts.scheduled:,}"),
        ("Processing", f"{counts.processing:,}"),
        ("Succeeded", f"{counts.succeeded:,}"),
        ("Failed", f"{counts.failed:,}"),
        ("Cancelled", f"{counts.cancelled:,}"),
        ("Total", f"{counts.total:,}"),
    ]


def print_pairs(rows: Iterable[tuple[str, str | Text]]) -> None:
    """One thing: each of its properties a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    print_rich(table)


def new_table(*columns: str) -> Table:
    """A table whose cells are never cut: ids and names are there to be copied."""
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in {"ID", "SESSION"})
    return table


def _state(is_active: bool) -> Text:
    return Text("active", style="green") if is_active else Text("paused", style="yellow")


def _queue_state(queue: Queue) -> Text:
    if queue.is_active or not queue.accepts_jobs:
        return _state(queue.is_active)
    return Text("paused, takes new jobs", style="yellow")


def _worker_state(worker: WorkerInfo) -> Text:
    words = "connected" if worker.connected else "no stream"
    if worker.draining:
        return Text(f"{words}, draining", style="yellow")
    return Text(words, style="green" if worker.connected else "")


def _origin(origin: JobOrigin) -> str:
    failed = format_time(origin.failed_at)
    return f"job {origin.job_id} of queue {origin.queue_id}, failed {failed}"


def _status(status: JobStatus) -> Text:
    return Text(status.name, style=_STYLES.get(status, ""))
