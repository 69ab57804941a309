"""How fast jobs are created, with nobody who takes them."""

from taskforge_cli.bench.measures import Metrics, cpu_metrics, latency_metrics
from taskforge_cli.bench.orders import Produce
from taskforge_cli.bench.scenarios.checking import require
from taskforge_cli.bench.stage import Stage


def enqueue_one(stage: Stage) -> Metrics:
    """One caller, CreateJob."""
    return _enqueue(stage, stage.sizes.enqueue_one, callers=1)


def enqueue_many(stage: Stage) -> Metrics:
    """Many callers at once, CreateJob."""
    return _enqueue(stage, stage.sizes.enqueue_many, callers=stage.sizes.callers)


def enqueue_bulk(stage: Stage) -> Metrics:
    """One caller, BatchCreateJobs."""
    return _enqueue(stage, stage.sizes.bulk, callers=1, batch=stage.sizes.batch)


def _enqueue(stage: Stage, jobs: int, *, callers: int, batch: int = 0) -> Metrics:
    stage.warm_up()
    queue = stage.make_queue()
    order = Produce(
        addresses=stage.addresses,
        queues=[queue.name],
        jobs=jobs,
        callers=callers,
        batch=batch,
        payload_bytes=stage.sizes.payload_bytes,
        by_stubs=stage.sizes.by_stubs,
    )
    with stage.usage() as usage:
        (outcome,) = stage.crew.run(stage.loads("producer"), [order])
    pending = stage.counts([queue]).pending
    require(pending == jobs, f"{jobs:,} jobs were created, and {pending:,} are there")
    metrics: Metrics = {
        "jobs_per_s": jobs / ((outcome.last_ns - outcome.first_ns) / 1e9),
        **latency_metrics(outcome.call_ms),
        **cpu_metrics(usage.cpu, jobs, with_worker=False),
    }
    return usage.with_memory(metrics)
