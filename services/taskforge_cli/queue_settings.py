"""The options for a queue's settings, which `create` and `update` share."""

import enum
from datetime import timedelta
from typing import Annotated

import typer

from taskforge_cli.options import duration_option
from taskforge_cli.parsing import parse_delays
from taskforge_sdk import PriorityDelays

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
MaxConcurrent = Annotated[
    int | None,
    typer.Option(
        "--max-concurrent-jobs", metavar="N", help="How many of its jobs run at once, everywhere."
    ),
]
RateLimit = Annotated[
    int | None,
    typer.Option(
        "--rate-limit-per-minute", metavar="N", help="How many of its jobs start in any 60 s."
    ),
]
DeadLetterQueue = Annotated[
    str | None,
    typer.Option(
        "--dead-letter-queue",
        metavar="QUEUE",
        help="The queue that gets a new job for each one that fails: its name or id.",
        show_default=False,
    ),
]
DelayByPriority = Annotated[
    PriorityDelays | None,
    typer.Option(
        "--delay-by-priority",
        metavar="DELAYS",
        parser=parse_delays,
        help="New jobs wait, by priority: on means 30 s (0 to 2), 10 s (3 to 5), 5 s (6 and 7)"
        " and none (8 and 9); low=1m,high=2s changes two of low, medium, high and urgent.",
        show_default=False,
    ),
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
    MAX_CONCURRENT_JOBS = "max-concurrent-jobs"
    RATE_LIMIT_PER_MINUTE = "rate-limit-per-minute"
    DEAD_LETTER_QUEUE = "dead-letter-queue"
    DELAY_BY_PRIORITY = "delay-by-priority"

    @property
    def field(self) -> str:
        """Its name in the contract, where a dead-letter queue goes by its id alone."""
        name = self.value.replace("-", "_")
        return f"{name}_id" if self is Setting.DEAD_LETTER_QUEUE else name
