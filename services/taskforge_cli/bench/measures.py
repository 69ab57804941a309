"""From what was seen to figures: rates, percentiles, and their medians over repetitions."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taskforge_cli.bench.usage import CpuTimes

Metrics = dict[str, float]
"""The figures of one measurement, by the names that `--json` writes."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over all repetitions."""

    median: float
    lowest: float
    highest: float


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of all do not exceed.

    Raises:
        ValueError: There are no values.
    """
    if not ascending:
        raise ValueError("there is nothing to take a percentile of")
    return ascending[max(0, -(-len(ascending) * percent // 100) - 1)]


def latency_metrics(milliseconds: Sequence[float]) -> Metrics:
    """`p50_ms`, `p95_ms` and `p99_ms`."""
    ascending = sorted(milliseconds)
    return {f"p{percent}_ms": percentile(ascending, percent) for percent in (50, 95, 99)}


def waits_ms(created: Mapping[str, int], started: Mapping[str, int]) -> list[float]:
    """From the beginning of the call that created a job to that of its handler, for each job."""
    return [(started[job] - began) / 1e6 for job, began in created.items() if job in started]


def cpu_metrics(cpu: CpuTimes, jobs: int, *, with_worker: bool) -> Metrics:
    """`cpu_us_…`: microseconds of CPU a job; what is not known is left out."""
    parts = {
        "cpu_us_postgres": cpu.postgres,
        "cpu_us_server": cpu.server,
        "cpu_us_worker": cpu.worker if with_worker else None,
    }
    return {name: seconds * 1e6 / jobs for name, seconds in parts.items() if seconds is not None}


def spread_of(values: Sequence[float]) -> Spread:
    """Median, least and greatest."""
    return Spread(statistics.median(values), min(values), max(values))


def spreads(runs: Sequence[Metrics]) -> dict[str, Spread]:
    """Each figure that all repetitions have, in the first one's order."""
    names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    return {name: spread_of([run[name] for run in runs]) for name in names}
