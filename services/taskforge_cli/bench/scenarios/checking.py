"""What must be right for a figure to count."""

from collections.abc import Sequence

from taskforge_cli.bench.orders import Outcome
from taskforge_cli.bench.stage import Stage
from taskforge_cli.failures import CommandError
from taskforge_sdk import Queue


def require(holds: bool, fault: str) -> None:
    """Fail the run with these words if it does not hold."""
    if not holds:
        raise CommandError(f"the figures do not count: {fault}")


def check_runs(
    stage: Stage, queues: Sequence[Queue], outcomes: Sequence[Outcome], *, before: int, left: int
) -> None:
    """Each job must have been run once and be SUCCEEDED, and the rest must wait.

    Args:
        stage: Where they ran.
        queues: Their queues, which nothing else uses.
        outcomes: What the workers tell.
        before: How many of the queues' jobs had succeeded before.
        left: How many must be left; -1: any number of them, none of it running.
    """
    runs = sum(outcome.jobs for outcome in outcomes)
    distinct = sum(outcome.distinct for outcome in outcomes)
    require(distinct == runs, f"{runs:,} runs were of {distinct:,} jobs: some ran more than once")
    counts = stage.counts(queues)
    succeeded = counts.succeeded - before
    require(succeeded == runs, f"{runs:,} jobs were run, and {succeeded:,} have succeeded")
    bad = counts.failed + counts.cancelled + counts.processing + counts.scheduled
    require(not bad, f"jobs have ended otherwise, or still run: {counts}")
    require(left < 0 or counts.pending == left, f"{counts.pending:,} jobs wait, not {left:,}")
