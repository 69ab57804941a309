"""How long a job waits until its handler starts: idle, at a rate, and under full load."""

from dataclasses import replace

from taskforge_cli.bench.measures import Metrics, cpu_metrics, latency_metrics, waits_ms
from taskforge_cli.bench.orders import Outcome, Pace, Produce, Work
from taskforge_cli.bench.scenarios.checking import check_runs, require
from taskforge_cli.bench.stage import Stage
from taskforge_sdk import Queue

_FIRST_JOBS = 20
_SLOTS = 100
"""Of the worker where it is to have free ones."""


def latency(stage: Stage) -> Metrics:
    """One job at a time, each on an idle system."""
    return _paced(stage, stage.sizes.latency, stage.sizes.latency_per_second, evenly=True)


def offered(stage: Stage, per_second: int) -> Metrics:
    """Jobs that come at random at this rate."""
    jobs = max(1, round(per_second * stage.sizes.load_seconds))
    return _paced(stage, jobs, per_second, evenly=False)


def mixed(stage: Stage) -> Metrics:
    """Many producers by CreateJob, and workers that keep up."""
    stage.warm_up(stage.sizes.workers)
    queue = stage.make_queue()
    sizes = stage.sizes
    workers = stage.loads("worker", sizes.workers)
    order = Produce(
        addresses=stage.addresses,
        queues=[queue.name],
        jobs=sizes.mixed,
        callers=sizes.mixed_callers,
        payload_bytes=sizes.payload_bytes,
        by_stubs=sizes.by_stubs,
        keep_starts=True,
    )
    first = _start_work(stage, queue, sizes.concurrency)
    with stage.usage(workers) as usage:
        (created,) = stage.crew.run(stage.loads("producer"), [order])
        jobs = first + created.jobs
        stage.crew.until_done(workers, jobs)
        _, ended_ns = stage.until_succeeded([queue], jobs)
    metrics: Metrics = {
        "jobs_per_s": created.jobs / ((ended_ns - created.first_ns) / 1e9),
        **_waits(stage, queue, created),
        **cpu_metrics(usage.cpu, created.jobs, with_worker=True),
    }
    return usage.with_memory(metrics)


def _paced(stage: Stage, jobs: int, per_second: float, *, evenly: bool) -> Metrics:
    stage.warm_up(stage.sizes.workers)
    queue = stage.make_queue()
    first = _start_work(stage, queue, _SLOTS)
    order = Pace(
        addresses=stage.addresses,
        queues=[queue.name],
        jobs=jobs,
        per_second=per_second,
        payload_bytes=stage.sizes.payload_bytes,
        evenly=evenly,
    )
    with stage.usage() as usage:
        (created,) = stage.crew.run(stage.loads("producer"), [order])
        stage.crew.until_done(stage.loads("worker", stage.sizes.workers), first + created.jobs)
    stage.until_succeeded([queue], first + created.jobs)
    return usage.with_memory(_waits(stage, queue, created))


def _start_work(stage: Stage, queue: Queue, slots: int) -> int:
    """Let workers wait for jobs, and see that they do by a few, whose number is returned."""
    workers = stage.loads("worker", stage.sizes.workers)
    order = Work(
        addresses=stage.addresses,
        queues=[queue.name],
        target=0,
        concurrency=slots,
        keep_starts=True,
    )
    for number, load in enumerate(workers):
        load.give(replace(order, addresses=stage.addresses_for(number)))
    first = Pace(
        addresses=stage.addresses,
        queues=[queue.name],
        jobs=_FIRST_JOBS,
        per_second=100,
        payload_bytes=stage.sizes.payload_bytes,
        evenly=True,
    )
    stage.crew.run(stage.loads("producer"), [first])
    stage.crew.until_done(workers, _FIRST_JOBS)
    return _FIRST_JOBS


def _waits(stage: Stage, queue: Queue, created: Outcome) -> Metrics:
    """End the workers, check what they did, and put together when jobs began."""
    outcomes = stage.crew.stop(stage.loads("worker", stage.sizes.workers))
    check_runs(stage, [queue], outcomes, before=0, left=0)
    started = {job: at for outcome in outcomes for job, at in outcome.starts.items()}
    waits = waits_ms(created.starts, started)
    require(
        len(waits) == created.jobs, f"of {created.jobs:,} jobs {len(waits):,} are known to have run"
    )
    return latency_metrics(waits)
