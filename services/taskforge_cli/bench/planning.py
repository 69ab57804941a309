"""How much each scenario does: full size, or small for a first look and for CI."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The numbers of a run; `full` and `quick` are the two sets of them."""

    enqueue_one: int = 5_000
    enqueue_many: int = 20_000
    callers: int = 50
    bulk: int = 200_000
    batch: int = 1_000
    drain: int = 50_000
    workers: int = 1
    """Worker processes of a drain."""
    concurrency: int = 2_000
    """Of each worker process."""
    latency: int = 300
    latency_per_second: float = 20.0
    """So slow that each job finds the system idle."""
    backlog: int = 1_000_000
    churn_seconds: float = 60.0
    fan_workers: int = 200
    fan_queues: int = 20
    fan_servers: int = 2
    fan_concurrency: int = 100
    mixed: int = 20_000
    mixed_callers: int = 100
    streams: int = 1_000
    idle_seconds: float = 20.0
    load_seconds: float = 5.0
    loads: tuple[int, ...] = (50, 100, 200, 400, 800, 1_200)
    """Jobs a second that are offered, for the plot."""
    backlogs: tuple[int, ...] = (0, 10_000, 100_000, 1_000_000)
    """Jobs that wait beside, for the plot."""
    warm_up: int = 2_000
    payload_bytes: int = 100
    by_stubs: bool = False


FULL = Sizes()
QUICK = Sizes(
    enqueue_one=200,
    enqueue_many=500,
    bulk=5_000,
    drain=2_000,
    latency=20,
    latency_per_second=50.0,
    backlog=10_000,
    churn_seconds=1.0,
    fan_workers=20,
    fan_concurrency=20,
    mixed=500,
    mixed_callers=20,
    streams=50,
    idle_seconds=2.0,
    load_seconds=1.0,
    loads=(20, 100),
    backlogs=(0, 5_000),
    warm_up=200,
)
