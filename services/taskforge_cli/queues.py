"""`taskforge queue …`: making, changing and watching queues."""

from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer

from taskforge_cli import documents, emptying, rendering
from taskforge_cli.connecting import queue_calls
from taskforge_cli.failures import usage_error
from taskforge_cli.options import (
    AsJson,
    Limit,
    PageSize,
    QueueAddress,
    QueueName,
    duration_option,
    time_option,
)
from taskforge_cli.parsing import point_in_time
from taskforge_cli.queue_settings import (
    Backoff,
    DeadLetterQueue,
    DelayByPriority,
    Jitter,
    MaxConcurrent,
    MaxPayload,
    MaxRetries,
    MaxRetryDelay,
    RateLimit,
    RetryDelay,
    Setting,
    Timeout,
)
from taskforge_sdk import (
    BlockingClient,
    Queue,
    QueueSettings,
    SettingsChange,
)

app = typer.Typer(help="Make, change and watch queues.")

Description = Annotated[
    str | None, typer.Option("--description", help="Free text for people.", show_default=False)
]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Up to 100 letters, digits and . _ - : /")
    ],
    description: Description = None,
    priority: Annotated[int, typer.Option(help="0 to 9, 9 first.")] = 0,
    max_retries: MaxRetries = None,
    timeout: Timeout = None,
    retry_delay: RetryDelay = None,
    max_retry_delay: MaxRetryDelay = None,
    backoff_multiplier: Backoff = None,
    retry_jitter: Jitter = None,
    max_payload_bytes: MaxPayload = None,
    max_concurrent_jobs: MaxConcurrent = None,
    rate_limit_per_minute: RateLimit = None,
    dead_letter_queue: DeadLetterQueue = None,
    delay_by_priority: DelayByPriority = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make a queue."""
    with queue_calls(queue_address) as client:
        settings = QueueSettings(
            max_retries=max_retries,
            timeout=timeout,
            retry_delay=retry_delay,
            max_retry_delay=max_retry_delay,
            backoff_multiplier=backoff_multiplier,
            retry_jitter=retry_jitter,
            max_payload_bytes=max_payload_bytes,
            max_concurrent_jobs=max_concurrent_jobs,
            rate_limit_per_minute=rate_limit_per_minute,
            dead_letter_queue_id=_id_of(client, dead_letter_queue),
            delay_by_priority=delay_by_priority,
        )
        queue = client.create_queue(
            name, description=description or "", priority=priority, settings=settings
        )
    _show(queue, as_json, f"Created the queue {queue.name} ({queue.id}).")


@app.command("list")
def list_(
    limit: Limit = 1000,
    page_size: PageSize = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """List the queues by name."""
    with queue_calls(queue_address) as client:
        listed = client.list_queues(page_size=min(limit, 1000) if page_size is None else page_size)
        queues = list(islice(listed, limit))
    if as_json:
        rendering.print_json(documents.queues_document(queues))
    else:
        rendering.print_queues(queues)


@app.command()
def show(queue: QueueName, queue_address: QueueAddress = None, as_json: AsJson = False) -> None:
    """Show a queue and its settings; defaults stand in brackets."""
    with queue_calls(queue_address) as client:
        found = client.get_queue(queue)
        dead_letters = found.settings.dead_letter_queue_id
        # People know a queue by its name.
        target = client.get_queue(dead_letters) if dead_letters and not as_json else None
    if as_json:
        rendering.print_json(documents.queue_document(found))
    else:
        rendering.print_queue(found, dead_letter_queue=target)


@app.command()
def update(
    queue: QueueName,
    name: Annotated[
        str | None, typer.Option("--name", help="The new name.", show_default=False)
    ] = None,
    description: Description = None,
    priority: Annotated[
        int | None, typer.Option(help="0 to 9, 9 first.", show_default=False)
    ] = None,
    max_retries: MaxRetries = None,
    timeout: Timeout = None,
    retry_delay: RetryDelay = None,
    max_retry_delay: MaxRetryDelay = None,
    backoff_multiplier: Backoff = None,
    retry_jitter: Jitter = None,
    max_payload_bytes: MaxPayload = None,
    max_concurrent_jobs: MaxConcurrent = None,
    rate_limit_per_minute: RateLimit = None,
    dead_letter_queue: DeadLetterQueue = None,
    delay_by_priority: DelayByPriority = None,
    default: Annotated[
        list[Setting] | None,
        typer.Option(
            "--default",
            metavar="SETTING",
            help="A setting to set back, such as timeout; may be given several times.",
        ),
    ] = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a queue, and nothing else."""
    changes: dict[str, Any] = {"name": name, "description": description, "priority": priority}
    settings: dict[str, Any] = {
        "max_retries": max_retries,
        "timeout": timeout,
        "retry_delay": retry_delay,
        "max_retry_delay": max_retry_delay,
        "backoff_multiplier": backoff_multiplier,
        "retry_jitter": retry_jitter,
        "max_payload_bytes": max_payload_bytes,
        "max_concurrent_jobs": max_concurrent_jobs,
        "rate_limit_per_minute": rate_limit_per_minute,
        "dead_letter_queue_id": dead_letter_queue,
        "delay_by_priority": delay_by_priority,
    }
    changes = {field: value for field, value in changes.items() if value is not None}
    settings = {field: value for field, value in settings.items() if value is not None}
    for setting in default or []:
        if setting.field in settings:
            raise usage_error(f"--{setting} and --default {setting} exclude each other")
        settings[setting.field] = None
    if not changes and not settings:
        raise usage_error("there is nothing to change: give an option, such as --priority")
    with queue_calls(queue_address) as client:
        if dead_letter_queue is not None:
            settings["dead_letter_queue_id"] = _id_of(client, dead_letter_queue)
        if settings:
            # The keys are those of SettingsChange, one an option.
            changes["settings"] = SettingsChange(**settings)  # type: ignore[typeddict-item]
        changed = client.update_queue(queue, **changes)
    _show(changed, as_json, f"Changed the queue {changed.name}.")


@app.command()
def pause(
    queue: QueueName,
    keep_accepting: Annotated[
        bool, typer.Option("--keep-accepting", help="Still take new jobs, which wait.")
    ] = False,
    resume_at: Annotated[
        datetime | None, time_option("--resume-at", "When it opens by itself.")
    ] = None,
    resume_after: Annotated[
        timedelta | None, duration_option("--resume-after", "After how long it opens by itself.")
    ] = None,
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Stop handing out a queue's jobs and taking new ones; running jobs finish."""
    until = point_in_time(resume_after, resume_at, "--resume-after", "--resume-at")
    with queue_calls(queue_address) as client:
        paused = client.pause_queue(queue, keep_accepting=keep_accepting, resume_at=until)
    if paused.is_active:
        line = f"The queue {paused.name} is open: the time to resume has passed."
    elif paused.resume_at is None:
        line = f"Paused the queue {paused.name}."
    else:
        line = f"Paused the queue {paused.name} until {rendering.format_time(paused.resume_at)}."
    _show(paused, as_json, line)


@app.command()
def resume(queue: QueueName, queue_address: QueueAddress = None, as_json: AsJson = False) -> None:
    """Open a paused queue again."""
    with queue_calls(queue_address) as client:
        resumed = client.resume_queue(queue)
    _show(resumed, as_json, f"Resumed the queue {resumed.name}.")


@app.command()
def stats(queue: QueueName, queue_address: QueueAddress = None, as_json: AsJson = False) -> None:
    """Count a queue's jobs by status."""
    with queue_calls(queue_address) as client:
        found = client.queue_stats(queue)
    if as_json:
        rendering.print_json(documents.queue_stats_document(found))
    else:
        rendering.print_queue_stats(queue, found)


app.command()(emptying.purge)
app.command()(emptying.redrive)


@app.command()
def delete(queue: QueueName, queue_address: QueueAddress = None, as_json: AsJson = False) -> None:
    """Delete a queue that has no unfinished job."""
    with queue_calls(queue_address) as client:
        client.delete_queue(queue)
    if as_json:
        rendering.print_json({"deleted": queue})
    else:
        rendering.print_line(f"Deleted the queue {queue}.")


def _show(queue: Queue, as_json: bool, line: str) -> None:
    if as_json:
        rendering.print_json(documents.queue_document(queue))
    else:
        rendering.print_line(line)


def _id_of(client: BlockingClient, queue: str | None) -> str | None:
    """The id of the queue that an option names."""
    return None if queue is None else client.get_queue(queue).id
