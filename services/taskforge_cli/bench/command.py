"""`taskforge bench`: the command that puts the parts of the bench together."""

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskforge_cli.configuration import load_settings
from taskforge_cli.connecting import refusal
from taskforge_cli.failures import CommandError, usage_error
from taskforge_cli.options import QueueAddress

if TYPE_CHECKING:
    from taskforge_cli.bench.planning import Sizes
    from taskforge_cli.bench.running import OpenStage
    from taskforge_cli.bench.scenarios.catalogue import Scenario
    from taskforge_cli.bench.stage import Stage
    from taskforge_core.settings import Settings

_NAMES = (
    "enqueue-one, enqueue-50, enqueue-bulk, drain, latency, backlog, pinned, limits, fanout, mixed,"
    " idle-streams"
)

_MOST_PACED_JOBS = 500


def bench(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SCENARIO",
            help=f"What to measure: {_NAMES}. Default: all of them.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Jobs a measurement, in place of each scenario's own number; for latency, which"
            " makes 20 a second, at most 500.",
            show_default=False,
        ),
    ] = None,
    payload_bytes: Annotated[
        int, typer.Option(min=2, max=262_144, help="How large a payload is.")
    ] = 100,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    concurrency: Annotated[
        int, typer.Option(min=1, max=10_000, help="Jobs that a worker runs at once in a drain.")
    ] = 2_000,
    servers: Annotated[int, typer.Option(min=1, max=16, help="Replicas of job_service.")] = 1,
    batch: Annotated[
        int, typer.Option(min=1, max=1_000, help="Jobs a call of BatchCreateJobs.")
    ] = 1_000,
    repeat: Annotated[
        int, typer.Option(min=1, max=100, help="How often to make each measurement.")
    ] = 3,
    stubs: Annotated[
        bool,
        typer.Option(
            "--stubs", help="Create jobs by the bare stubs instead of the Python SDK's client."
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small numbers: to see that it works, not how fast.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the figures there too.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Measure latency against offered load and the drain against the backlog as well,"
            " and draw both there as PNG.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Measure the job_service that is there, on a system that serves nothing else; may"
            " be given several times. What its processes use is then not known. Default: start"
            " a system on an embedded Postgres for each measurement.",
            show_default=False,
        ),
    ] = None,
    queue_address: QueueAddress = None,
) -> None:
    """Measure how fast the system is here, and what each job costs.

    Each measurement has a system of its own, with Postgres, the services, authentication and fsync,
    and takes the time of the whole way through gRPC; producers and workers are processes of their
    own. Every job must come out right, or the run fails. All figures are medians over the
    repetitions, with the least and the greatest value.
    """
    _require_packages(plotting=plot is not None)
    from taskforge_cli.bench.planning import FULL, QUICK
    from taskforge_cli.bench.progress import watching
    from taskforge_cli.bench.reporting import print_tables, write_json
    from taskforge_cli.bench.running import Results, run_all
    from taskforge_core.logs import configure_logging
    from taskforge_sdk import TaskForgeError

    sizes = replace(
        QUICK if quick else FULL,
        payload_bytes=payload_bytes,
        workers=workers,
        concurrency=concurrency,
        batch=batch,
        by_stubs=stubs,
        **_jobs(jobs),
    )
    chosen = _choose(scenarios or [], plotting=plot is not None, has_address=bool(address))
    groups = [scenario.measurements(sizes, servers) for scenario in chosen]
    settings = load_settings(queue_address=queue_address)
    configure_logging(settings.log_format, "warning")
    for file in (json, plot):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _leave)
    # Also where whoever started us lets Ctrl-C be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    results: Results = {}
    with ExitStack() as stack:
        open_stage = _given(settings, sizes, address, stack) if address else _own(settings, sizes)
        # Also what was measured before a failure: it took its time.
        stack.callback(print_tables, results)
        watcher = stack.enter_context(watching(repeat * sum(map(len, groups))))
        try:
            for each in run_all(groups, repeat, open_stage, watcher):
                results.update(each)
        except TaskForgeError as error:
            where = ", ".join(address or ["the bench's own"])
            raise refusal(error, "queue or job", where) from error
    if json is not None:
        write_json(results, json)
    if plot is not None:
        from taskforge_cli.bench.plotting import draw

        draw(results, plot)


def _own(settings: "Settings", sizes: "Sizes") -> "OpenStage":
    from taskforge_cli.bench.stage import own_stage

    def open_stage(servers: int, show: Callable[[int], None]) -> "AbstractContextManager[Stage]":
        return own_stage(settings, sizes, servers, show)

    return open_stage


def _given(
    settings: "Settings", sizes: "Sizes", addresses: list[str], stack: ExitStack
) -> "OpenStage":
    from taskforge_cli.bench.stage import given_client, given_stage

    client = stack.enter_context(given_client(settings, addresses[0]))

    def open_stage(_servers: int, show: Callable[[int], None]) -> "AbstractContextManager[Stage]":
        return given_stage(client, sizes, addresses, {}, show)

    return open_stage


def _choose(names: list[str], *, plotting: bool, has_address: bool) -> "list[Scenario]":
    from taskforge_cli.bench.scenarios.catalogue import SCENARIOS

    for name in names:
        if name not in SCENARIOS:
            raise usage_error(f"there is no scenario {name}; there are: {', '.join(SCENARIOS)}")
    chosen = [
        scenario
        for scenario in SCENARIOS.values()
        if (scenario.name in names if names else not scenario.is_sweep)
        or (plotting and scenario.is_sweep)
    ]
    refused = [scenario.name for scenario in chosen if scenario.needs_own_system]
    if has_address and refused:
        if names:
            raise usage_error(
                f"--address: {', '.join(refused)} cannot be measured there: the database and the"
                " processes must be the bench's own"
            )
        chosen = [scenario for scenario in chosen if not scenario.needs_own_system]
    return chosen


def _jobs(jobs: int | None) -> dict[str, Any]:
    if jobs is None:
        return {}
    same = ("enqueue_one", "enqueue_many", "bulk", "drain", "mixed")
    return {**dict.fromkeys(same, jobs), "latency": min(jobs, _MOST_PACED_JOBS)}


def _require_packages(*, plotting: bool) -> None:
    wanted = ["psutil", *(["matplotlib"] if plotting else [])]
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"this needs {' and '.join(missing)}: install TaskForge with the extra `bench`"
            " (pip install 'taskforge[bench]')"
        )


def _leave(number: int, _frame: object) -> None:
    """On SIGTERM: unwind, so that everything is stopped and removed."""
    sys.exit(128 + number)
