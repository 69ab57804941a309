"""`taskforge queue …`: making, changing and watching queues."""

import enum
from datetime import timedelta
from itertools import islice
from typing import Annotated, Any

import typer

from taskforge_cli import documents, rendering
from taskforge_cli.connecting import queue_calls
from taskforge_cli.failures import usage_error
from taskforge_cli.options import AsJson, Limit, PageSize, QueueAddress, duration_option
from taskforge_sdk import Queue, QueueSettings, SettingsChange

app = typer.Typer(help="Make, change and watch queues.")

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name or id.")]
Description = Annotated[
    str | None, typer.Option("--description", help="Free text for people.", show_default=False)
]
MaxRetries = Annotated[
    int | None,
    typer.Option("--max-retries", metavar="N", help="How often a failed job is tried again."),
]
Timeout = Annotated[timedelta | None, duration_option("--timeout", "How long an attempt may run.")]
RetryDelay = Annotated[
    timedelta | None, duration_option("--retry-delay", "The wait after the first failed attempt.")
]
MaxRetryDelay = Annotated[
    timedelta | None, duration_option("--max-retry-delay", "The longest wait between attempts.")
]
Backoff = Annotated[
    float | None,
    typer.Option("--backoff-multiplier", metavar="X", help="How the wait grows, 1 to 100."),
]
Jitter = Annotated[
    float | None,
    typer.Option("--retry-jitter", metavar="SHARE", help="By how much waits vary, 0 to 1."),
]
MaxPayload = Annotated[
    int | None,
    typer.Option("--max-payload-bytes", metavar="N", help="The largest payload it takes."),
]


class Setting(enum.StrEnum):
    """A setting that can be set back to its default."""

    MAX_RETRIES = "max-retries"
    TIMEOUT = "timeout"
    RETRY_DELAY = "retry-delay"
    MAX_RETRY_DELAY = "max-retry-delay"
    BACKOFF_MULTIPLIER = "backoff-multiplier"
    RETRY_JITTER = "retry-jitter"
    MAX_PAYLOAD_BYTES = "max-payload-bytes"

    @property
    def field(self) -> str:
        """Its name in the contract."""
        return self.value.replace("-", "_")


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
    queue_address: QueueAddress = None,
    as_json: AsJson = False,
) -> None:
    """Make a queue."""
    settings = QueueSettings(
        max_retries=max_retries,
        timeout=timeout,
        retry_delay=retry_delay,
        max_retry_delay=max_retry_delay,
        backoff_multiplier=backoff_multiplier,
        retry_jitter=retry_jitter,
        max_payload_bytes=max_payload_bytes,
    )
    with queue_calls(queue_address) as client:
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
    if as_json:
        rendering.print_json(documents.queue_document(found))
    else:
        rendering.print_queue(found)


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
    default: Annotated[
        list[Setting] | None,
        typer.Option("--default", help="A setting to set back; may be given several times."),
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
    }
    changes = {field: value for field, value in changes.items() if value is not None}
    settings = {field: value for field, value in settings.items() if value is not None}
    for setting in default or []:
        if setting.field in settings:
            raise usage_error(f"--{setting} and --default {setting} exclude each other")
        settings[setting.field] = None
    if settings:
        # The keys are those of SettingsChange, one an option.
        changes["settings"] = SettingsChange(**settings)  # type: ignore[typeddict-item]
    if not changes:
        raise usage_error("there is nothing to change: give an option, such as --priority")
    with queue_calls(queue_address) as client:
        changed = client.update_queue(queue, **changes)
    _show(changed, as_json, f"Changed the queue {changed.name}.")


@app.command()
def pause(queue: QueueName, queue_address: QueueAddress = None, as_json: AsJson = False) -> None:
    """Stop handing out a queue's jobs and taking new ones; running jobs finish."""
    with queue_calls(queue_address) as client:
        paused = client.pause_queue(queue)
    _show(paused, as_json, f"Paused the queue {paused.name}.")


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
