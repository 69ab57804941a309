"""The demo's last words: a table of what was measured, and the verdict."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from taskforge_cli.demo.checking import Measures, Verdict, measure
from taskforge_cli.demo.planning import LANES, Lane
from taskforge_cli.rendering import format_duration, make_console, print_rich
from taskforge_sdk import Job

_FAULTS_SHOWN = 10


def print_table(jobs: Mapping[Lane, Sequence[Job]]) -> None:
    """One row a queue, and one for all."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=False, pad_edge=False)
    table.add_column("QUEUE")
    for heading in (
        "PRIORITY", "JOBS", "ATTEMPTS", "RESCUED", "RETRIED", "JOBS/S", "WAIT P50", "WAIT P95",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for lane in LANES:
        table.add_row(lane.title, str(lane.priority), *_cells(measure(jobs[lane])))
    everything = [job for lane in LANES for job in jobs[lane]]
    table.add_section()
    table.add_row("all", "", *_cells(measure(everything)), style="bold")
    print_rich(table)


def print_verdict(verdict: Verdict) -> None:
    """Whether all is right, and what is not."""
    console = make_console()
    if verdict.changed_files:
        console.print(
            f"{verdict.changed_files:,} files changed meanwhile; their results are left out."
        )
    if not verdict.faults:
        console.print(
            f"All {verdict.compared:,} results equal what was computed directly:"
            " none differs, none is missing, none is double.",
            style="bold green",
        )
        return
    console.print(f"{len(verdict.faults):,} faults:", style="bold red")
    for fault in verdict.faults[:_FAULTS_SHOWN]:
        console.print(f"  {fault}", markup=False)
    if len(verdict.faults) > _FAULTS_SHOWN:
        console.print(f"  … and {len(verdict.faults) - _FAULTS_SHOWN:,} more")


def _cells(measures: Measures) -> list[str]:
    return [
        f"{measures.jobs:,}",
        f"{measures.attempts:,}",
        f"{measures.rescued:,}",
        f"{measures.retried:,}",
        f"{measures.jobs_per_second:,.0f}",
        format_duration(measures.wait_p50),
        format_duration(measures.wait_p95),
    ]
