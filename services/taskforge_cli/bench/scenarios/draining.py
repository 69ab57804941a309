"""How fast jobs that wait are worked off: alone, beside many others, and under what slows down."""

import time
from collections.abc import Sequence
from dataclasses import replace

from taskforge_cli.bench.filling import fill_finished, fill_waiting
from taskforge_cli.bench.measures import Metrics, cpu_metrics
from taskforge_cli.bench.orders import Pin, Produce, Work
from taskforge_cli.bench.scenarios.checking import check_runs, require
from taskforge_cli.bench.stage import Stage
from taskforge_sdk import Queue, QueueSettings

_FAN_PROCESSES = 2
_CHURN_CHUNK = 10_000

NO_LIMIT_IN_PRACTICE = QueueSettings(max_concurrent_jobs=100_000, rate_limit_per_minute=1_000_000)
"""Both limits as high as the contract allows: they are checked, and never reached."""


def drain(stage: Stage) -> Metrics:
    """Jobs of one queue, one worker process."""
    stage.warm_up(stage.sizes.workers)
    queue = stage.make_queue()
    create(stage, [queue], stage.sizes.drain)
    return work_off(stage, [queue], stage.sizes.drain)


def drain_within_limits(stage: Stage) -> Metrics:
    """The same from a queue with both limits."""
    stage.warm_up(stage.sizes.workers)
    queue = stage.make_queue(settings=NO_LIMIT_IN_PRACTICE)
    create(stage, [queue], stage.sizes.drain)
    return work_off(stage, [queue], stage.sizes.drain)


def drain_of_backlog(stage: Stage) -> Metrics:
    """The same number of jobs, the first of very many that wait in their queue."""
    return drain_among(stage, stage.sizes.backlog)


def drain_among(stage: Stage, backlog: int) -> Metrics:
    """The first jobs of a queue in which `backlog` more wait."""
    dsn = stage.require_dsn()
    stage.warm_up(stage.sizes.workers)
    queue = stage.make_queue()
    fill_waiting(dsn, queue, stage.sizes.drain + backlog, stage.sizes.payload_bytes)
    return work_off(stage, [queue], stage.sizes.drain, left=-1 if backlog else 0)


def drain_with_history(stage: Stage) -> Metrics:
    """The same number of jobs of a queue with very many in its history."""
    dsn = stage.require_dsn()
    stage.warm_up(stage.sizes.workers)
    queue = stage.make_queue()
    fill_finished(dsn, queue, stage.sizes.backlog, stage.sizes.payload_bytes)
    create(stage, [queue], stage.sizes.drain)
    return work_off(stage, [queue], stage.sizes.drain)


def drain_while_pinned(stage: Stage) -> Metrics:
    """The same while a transaction is open that was before very many jobs came and went."""
    dsn = stage.require_dsn()
    stage.warm_up(stage.sizes.workers)
    queue = stage.make_queue()
    pinning = stage.loads("pinned")
    for load in pinning:
        load.give(Pin(dsn=dsn))
    stage.crew.until_done(pinning, 1, quietly=True)
    _churn(stage, queue)
    create(stage, [queue], stage.sizes.drain)
    metrics = work_off(stage, [queue], stage.sizes.drain)
    stage.crew.stop(pinning)
    return metrics


def fan_out(stage: Stage) -> Metrics:
    """Many workers, each for all of several queues of different priority; several job servers."""
    stage.warm_up(_FAN_PROCESSES)
    sizes = stage.sizes
    queues = [stage.make_queue(priority=number % 10) for number in range(sizes.fan_queues)]
    create(stage, queues, sizes.drain)
    return work_off(
        stage,
        queues,
        sizes.drain,
        processes=_FAN_PROCESSES,
        workers=sizes.fan_workers // _FAN_PROCESSES,
        concurrency=sizes.fan_concurrency,
    )


def create(stage: Stage, queues: Sequence[Queue], jobs: int) -> None:
    """Put jobs into the queues, in bulk and in turns."""
    order = Produce(
        addresses=stage.addresses,
        queues=[queue.name for queue in queues],
        jobs=jobs,
        batch=stage.sizes.batch,
        payload_bytes=stage.sizes.payload_bytes,
        by_stubs=stage.sizes.by_stubs,
    )
    stage.crew.run(stage.loads("producer"), [order])
    pending = stage.counts(queues).pending
    require(pending == jobs, f"{jobs:,} jobs were created, and {pending:,} wait")


def work_off(
    stage: Stage,
    queues: Sequence[Queue],
    jobs: int,
    *,
    left: int = 0,
    processes: int | None = None,
    workers: int = 1,
    concurrency: int | None = None,
) -> Metrics:
    """Measure from the first handler's start until so many jobs are settled.

    Args:
        stage: Where the jobs wait.
        queues: The queues that they wait in.
        jobs: How many to wait for.
        left: How many are to wait then; -1: more of them, of which workers may run some.
        processes: Worker processes; default: as the sizes say.
        workers: Workers in each of them.
        concurrency: Of each worker; default: as the sizes say.
    """
    before = stage.counts(queues).succeeded
    count = processes or stage.sizes.workers
    loads = stage.loads("worker", count)
    order = Work(
        addresses=stage.addresses,
        queues=[queue.name for queue in queues],
        target=jobs // count,
        workers=workers,
        concurrency=concurrency or stage.sizes.concurrency,
    )
    with stage.usage(loads) as usage:
        for number, load in enumerate(loads):
            load.give(replace(order, addresses=stage.addresses_for(number)))
        stage.crew.until_done(loads, jobs)
        succeeded, ended_ns = stage.until_succeeded(queues, before + jobs)
    outcomes = stage.crew.stop(loads)
    check_runs(stage, queues, outcomes, before=before, left=left)
    settled = succeeded - before
    began_ns = min(outcome.first_ns for outcome in outcomes if outcome.jobs)
    metrics: Metrics = {
        "jobs_per_s": settled / ((ended_ns - began_ns) / 1e9),
        **cpu_metrics(usage.cpu, settled, with_worker=True),
    }
    return usage.with_memory(metrics)


def _churn(stage: Stage, queue: Queue) -> None:
    """Let jobs come and go for a while."""
    workers = stage.loads("worker", stage.sizes.workers)
    work = Work(
        addresses=stage.addresses,
        queues=[queue.name],
        target=0,
        concurrency=stage.sizes.concurrency,
    )
    for load in workers:
        load.give(work)
    produce = Produce(
        addresses=stage.addresses,
        queues=[queue.name],
        jobs=min(_CHURN_CHUNK, stage.sizes.drain),
        batch=stage.sizes.batch,
        payload_bytes=stage.sizes.payload_bytes,
    )
    ends = time.monotonic() + stage.sizes.churn_seconds
    jobs = 0
    while time.monotonic() < ends:
        stage.crew.run(stage.loads("producer"), [produce])
        jobs += produce.jobs
        stage.crew.until_done(workers, jobs)
    stage.until_succeeded([queue], jobs)
    outcomes = stage.crew.stop(workers)
    check_runs(stage, [queue], outcomes, before=0, left=0)
