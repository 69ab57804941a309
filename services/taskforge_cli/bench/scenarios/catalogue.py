"""The scenarios by name, and which measurements each consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from taskforge_cli.bench.measures import Metrics
from taskforge_cli.bench.planning import Sizes
from taskforge_cli.bench.scenarios import draining, enqueueing, idling, waiting
from taskforge_cli.bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure after the other of a scenario; each takes place on a system of its own."""

    key: str
    """Its name in tables and in JSON."""
    measure: Callable[[Stage], Metrics]
    servers: int = 1
    ratio_to: str = ""
    """The measurement of the same repetition that its `jobs_per_s` are divided by: `ratio`."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What can be asked for."""

    name: str
    about: str
    measurements: Callable[[Sizes, int], list[Measurement]]
    """Of these sizes, with so many job servers."""
    needs_own_system: bool = False
    is_sweep: bool = False
    """Run for `--plot` or when named, not by default."""


def _single(
    key: str, measure: Callable[[Stage], Metrics]
) -> Callable[[Sizes, int], list[Measurement]]:
    return lambda _, servers: [Measurement(key, measure, servers)]


def _compared(
    name: str, others: dict[str, Callable[[Stage], Metrics]]
) -> Callable[[Sizes, int], list[Measurement]]:
    """A drain of the same number of jobs first, to compare the others with."""
    plain = f"{name}-plain"
    return lambda _, servers: [
        Measurement(plain, draining.drain, servers),
        *(Measurement(key, measure, servers, plain) for key, measure in others.items()),
    ]


def _fan_out(sizes: Sizes, servers: int) -> list[Measurement]:
    return [
        Measurement("fanout-plain", draining.drain, servers),
        Measurement("fanout", draining.fan_out, max(servers, sizes.fan_servers), "fanout-plain"),
    ]


def _loads(sizes: Sizes, servers: int) -> list[Measurement]:
    return [
        Measurement(f"load-{rate}", partial(waiting.offered, per_second=rate), servers)
        for rate in sizes.loads
    ]


def _backlogs(sizes: Sizes, servers: int) -> list[Measurement]:
    return [
        Measurement(f"among-{size}", partial(draining.drain_among, backlog=size), servers)
        for size in sizes.backlogs
    ]


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "enqueue-one",
            "CreateJob by one caller",
            _single("enqueue-one", enqueueing.enqueue_one),
        ),
        Scenario(
            "enqueue-50",
            "CreateJob by 50 callers at once",
            _single("enqueue-50", enqueueing.enqueue_many),
        ),
        Scenario(
            "enqueue-bulk",
            "BatchCreateJobs of 1,000 by one caller, with a request_id a call",
            _single("enqueue-bulk", enqueueing.enqueue_bulk),
        ),
        Scenario(
            "drain",
            "50,000 jobs that wait, worked off by one worker process",
            _single("drain", draining.drain),
        ),
        Scenario(
            "latency",
            "from the call that creates a job on an idle system to its handler",
            _single("latency", waiting.latency),
        ),
        Scenario(
            "backlog",
            "the drain with 1,000,000 more that wait, and with 1,000,000 finished",
            _compared(
                "backlog",
                {
                    "backlog-waiting": draining.drain_of_backlog,
                    "backlog-finished": draining.drain_with_history,
                },
            ),
            needs_own_system=True,
        ),
        Scenario(
            "pinned",
            "the drain while a transaction has been open during a minute of churn",
            _compared("pinned", {"pinned": draining.drain_while_pinned}),
            needs_own_system=True,
        ),
        Scenario(
            "limits",
            "the drain of a queue with both limits, which are never reached",
            _compared("limits", {"limits": draining.drain_within_limits}),
        ),
        Scenario(
            "fanout",
            "the drain by 200 workers, of 20 queues of different priority, over two job servers",
            _fan_out,
        ),
        Scenario(
            "mixed",
            "100 producers by CreateJob, and workers that keep up",
            _single("mixed", waiting.mixed),
        ),
        Scenario(
            "idle-streams",
            "1,000 lease streams on which nothing comes",
            lambda _, servers: [
                Measurement("idle-streams", idling.idle_streams, servers),
                Measurement(
                    "idle-streams-heartbeats", idling.idle_streams_with_heartbeats, servers
                ),
            ],
            needs_own_system=True,
        ),
        Scenario("load", "latency at several offered loads", _loads, is_sweep=True),
        Scenario(
            "among",
            "the drain with more and more jobs that wait",
            _backlogs,
            needs_own_system=True,
            is_sweep=True,
        ),
    )
}
