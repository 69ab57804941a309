"""What is compared: a scenario of `taskforge bench`, and the same work done by other systems."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.peers.driving import Driver, Outcome
from tests.benchmarks.peers.loading import Order
from tests.benchmarks.peers.ratios import Goal
from tests.benchmarks.peers.systems import (
    EMPTY_CALL,
    GRAPHILE_WORKER,
    PG_BOSS,
    PGQUEUER,
    RAW_SQL,
    System,
)

from taskforge_cli.bench.measures import Metrics, latency_metrics
from taskforge_cli.bench.planning import Sizes
from taskforge_cli.bench.scenarios import draining, enqueueing, waiting
from taskforge_cli.bench.scenarios.checking import require
from taskforge_cli.bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Comparison:
    """One scenario."""

    name: str
    ours: Callable[[Stage], Metrics]
    theirs: Callable[[Driver, System], Metrics]
    figures: tuple[str, ...]
    """Of the metrics, those that are compared."""
    others: dict[System, Goal | None]
    """Who else does the same, and what our ratio to it is to be."""


def drain(driver: Driver, system: System) -> Metrics:
    """One worker process, from the first handler until the last job is settled."""
    sizes = driver.stage.sizes
    (outcome,) = driver.run(system, [_order(sizes, "drain", sizes.drain, batch=sizes.batch)])
    _check_runs(outcome, sizes.drain)
    return {"jobs_per_s": _rate(sizes.drain, outcome["first_ns"], outcome["ended_ns"])}


def enqueue_one(driver: Driver, system: System) -> Metrics:
    """One caller, a job a call."""
    return _enqueue(driver, system, driver.stage.sizes.enqueue_one)


def enqueue_many(driver: Driver, system: System) -> Metrics:
    """Many callers, a job a call."""
    sizes = driver.stage.sizes
    return _enqueue(driver, system, sizes.enqueue_many, callers=sizes.callers)


def enqueue_bulk(driver: Driver, system: System) -> Metrics:
    """One caller, many jobs a call."""
    sizes = driver.stage.sizes
    return _enqueue(driver, system, sizes.bulk, batch=sizes.batch)


def latency(driver: Driver, system: System) -> Metrics:
    """From the call to the handler, a job at a time; producer and worker are processes."""
    sizes = driver.stage.sizes
    work = _order(sizes, "work", sizes.latency)
    pace = _order(
        sizes, "pace", sizes.latency, per_second=sizes.latency_per_second, is_worked_off=True
    )
    worked, _ = driver.run(system, [work, pace])
    _check_runs(worked, sizes.warm_up + sizes.latency)
    waits = worked["waits_ms"]
    require(len(waits) == sizes.latency, f"of {sizes.latency:,} jobs {len(waits):,} were timed")
    return latency_metrics(waits)


def mixed(driver: Driver, system: System) -> Metrics:
    """Many callers and a worker at once, from the first call until the last job is settled."""
    sizes = driver.stage.sizes
    work = _order(sizes, "work", sizes.mixed)
    enqueue = _order(sizes, "enqueue", sizes.mixed, callers=sizes.mixed_callers, is_worked_off=True)
    worked, created = driver.run(system, [work, enqueue])
    _check_runs(worked, sizes.warm_up + sizes.mixed)
    return {"jobs_per_s": _rate(sizes.mixed, created["first_ns"], worked["ended_ns"])}


def _enqueue(driver: Driver, system: System, jobs: int, **how: Any) -> Metrics:
    (outcome,) = driver.run(system, [_order(driver.stage.sizes, "enqueue", jobs, **how)])
    require(outcome["left"] == jobs, f"{jobs:,} jobs were created, and {outcome['left']:,} wait")
    return {"jobs_per_s": _rate(jobs, outcome["first_ns"], outcome["last_ns"])}


def _order(sizes: Sizes, do: str, jobs: int, **how: Any) -> Order:
    return Order(do, "", jobs=jobs, warm_up=sizes.warm_up, payload_bytes=sizes.payload_bytes, **how)


def _check_runs(outcome: Outcome, jobs: int) -> None:
    runs, distinct = outcome["jobs"], outcome["distinct"]
    require(runs == distinct == jobs, f"of {jobs:,} jobs {distinct:,} ran, in {runs:,} runs")


def _rate(jobs: int, first_ns: int, last_ns: int) -> float:
    return jobs / ((last_ns - first_ns) / 1e9)


def _all_peers(goal: Goal) -> dict[System, Goal | None]:
    return dict.fromkeys((PGQUEUER, GRAPHILE_WORKER, PG_BOSS), goal)


_RATE = ("jobs_per_s",)

COMPARISONS = {
    comparison.name: comparison
    for comparison in (
        Comparison(
            "drain",
            draining.drain,
            drain,
            _RATE,
            {
                PGQUEUER: None,
                GRAPHILE_WORKER: Goal(at_least=1.3),
                PG_BOSS: None,
                RAW_SQL: Goal(at_least=0.5),
            },
        ),
        Comparison(
            "enqueue-bulk",
            enqueueing.enqueue_bulk,
            enqueue_bulk,
            _RATE,
            _all_peers(Goal(at_least=1.5)),
        ),
        Comparison(
            "enqueue-one",
            enqueueing.enqueue_one,
            enqueue_one,
            _RATE,
            {PGQUEUER: Goal(at_least=0.55), EMPTY_CALL: None},
        ),
        Comparison(
            "enqueue-50",
            enqueueing.enqueue_many,
            enqueue_many,
            _RATE,
            {PGQUEUER: Goal(at_least=1.3), EMPTY_CALL: Goal(at_least=0.8)},
        ),
        Comparison(
            "latency",
            waiting.latency,
            latency,
            ("p50_ms", "p99_ms"),
            _all_peers(Goal(at_most=1.0)),
        ),
        Comparison("mixed", waiting.mixed, mixed, _RATE, {PGQUEUER: Goal(at_least=2.0)}),
    )
}
"""By the names that `taskforge bench` has for what ours does."""
