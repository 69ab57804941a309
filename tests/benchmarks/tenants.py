"""What a noisy tenant costs the others: `make bench`.

Two replicas of job_service, as processes that authenticate, on an embedded Postgres (fsync on).
Tenant A has a quota of jobs a second and sends ten times as many, from a process of its own, which
runs when nobody else wants a processor: what A's own client costs is not the question. B and C
create jobs at a modest rate and take the time of each call. Every round measures them without A,
with A at its quota and with A at ten times its quota, one right after the other; the figures are
medians over the rounds. The goal: with A's noise the others' p99 is at most twice what it is
without.
"""

import asyncio
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from rich.console import Console
from rich.table import Table
from tests.support.deployment import Deployment
from tests.support.rows import insert_queue
from tests.support.stubs import JobStub
from tests.support.tenants import bearing_channel, insert_tenant

from taskforge.v1 import job_pb2
from taskforge.v1 import job_service_pb2 as pb
from taskforge.v1.job_service_pb2_grpc import JobServiceStub
from taskforge_core.logs import configure_logging

QUOTA = 50
"""Jobs a second that A may create, over both replicas together."""

NOISES = {"without A": 0, "A at its quota": QUOTA, "A at ten times": 10 * QUOTA}
"""How many A tries to create a second, in the order of a round."""

QUIET = 40
"""Jobs a second that B and C create each."""

ROUNDS = 5
SECONDS = 6.0
WARM_UP = 2.0
MOST_AT_ONCE = 500
"""Calls that the noise has open at most, should the servers not keep up."""


def creation() -> pb.CreateJobRequest:
    """A job with a request id of its own, as the SDK creates them."""
    request_id = uuid.uuid4().hex
    return pb.CreateJobRequest(
        job=job_pb2.JobSpec(queue="q", job_type="send", payload='{"n": 1}', request_id=request_id)
    )


@dataclass(frozen=True)
class Latencies:
    """Of successful calls, in milliseconds."""

    p50: float
    p99: float


async def create_evenly(
    stubs: Sequence[JobStub], rate: float, seconds: float, stop: Event | None = None
) -> tuple[list[float], Counter[str]]:
    """Create jobs at a rate, come what may; how many seconds calls took, and what came of them."""
    took: list[float] = []
    outcomes: Counter[str] = Counter()
    calls: set[asyncio.Task[None]] = set()

    async def create(stub: JobStub) -> None:
        started = time.perf_counter()
        try:
            await stub.CreateJob(creation())
        except grpc.aio.AioRpcError as error:
            outcomes[error.code().name] += 1
        else:
            outcomes["OK"] += 1
            took.append(time.perf_counter() - started)

    began = due = time.perf_counter()
    while due < began + seconds and not (stop is not None and stop.is_set()):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(calls) < MOST_AT_ONCE:
            call = asyncio.create_task(create(random.choice(stubs)))
            calls.add(call)
            call.add_done_callback(calls.discard)
        due += random.expovariate(rate)
    await asyncio.gather(*calls)
    return took, outcomes


async def stubs_of(stack: AsyncExitStack, addresses: Sequence[str], key: str) -> list[JobStub]:
    """A tenant's calls at every replica."""
    channels = [
        await stack.enter_async_context(bearing_channel(address, key)) for address in addresses
    ]
    return [JobServiceStub(channel) for channel in channels]


def make_noise(
    addresses: Sequence[str], key: str, rate: float, loud: Event, stop: Event, results: Any
) -> None:
    """The process of tenant A: noise until it is stopped; then what came of its calls."""

    async def run() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        async with AsyncExitStack() as stack:
            stubs = await stubs_of(stack, addresses, key)
            loud.set()
            started = time.perf_counter()
            _, outcomes = await create_evenly(stubs, rate, 3600.0, stop)
            results.put((outcomes, time.perf_counter() - started))

    asyncio.run(run())


@contextmanager
def noise(addresses: Sequence[str], key: str, rate: float) -> Iterator[list[dict[str, float]]]:
    """Tenant A sends this many calls a second meanwhile; in the end, how many of each outcome."""
    spawn = multiprocessing.get_context("spawn")
    loud, stop, results = spawn.Event(), spawn.Event(), spawn.SimpleQueue()
    process = spawn.Process(target=make_noise, args=(addresses, key, rate, loud, stop, results))
    process.start()
    rates: list[dict[str, float]] = []
    try:
        if not loud.wait(30):
            raise RuntimeError("the process of tenant A did not start")
        yield rates
        stop.set()
        outcomes, seconds = results.get()
        rates.append({outcome: count / seconds for outcome, count in outcomes.items()})
        process.join()
    finally:
        process.kill()


async def measure(tenants: Sequence[Sequence[JobStub]]) -> Latencies:
    """How long calls of the quiet tenants take."""
    await asyncio.gather(*(create_evenly(stubs, QUIET, WARM_UP) for stubs in tenants))
    results = await asyncio.gather(*(create_evenly(stubs, QUIET, SECONDS) for stubs in tenants))
    assert all(set(outcomes) == {"OK"} for _, outcomes in results), results
    ranked = statistics.quantiles([ms * 1000 for took, _ in results for ms in took], n=100)
    return Latencies(ranked[49], ranked[98])


async def measure_all(dsn: str, addresses: Sequence[str]) -> Table:
    """Everything, as a table."""
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=1)
    keys = {}
    for name in "ABC":
        tenant = await insert_tenant(pool, name)
        await insert_queue(pool, "q", project_id=tenant.project_id)
        keys[name] = tenant.key
        if name == "A":
            await pool.execute(
                "UPDATE taskforge.projects SET max_jobs_per_second = $1 WHERE id = $2",
                QUOTA,
                tenant.project_id,
            )
    await pool.close()
    measured: dict[str, list[Latencies]] = {name: [] for name in NOISES}
    answered: dict[str, list[dict[str, float]]] = {name: [] for name in NOISES}
    async with AsyncExitStack() as stack:
        tenants = [await stubs_of(stack, addresses, keys[name]) for name in "BC"]
        for _ in range(ROUNDS):
            for name, rate in NOISES.items():
                if not rate:
                    measured[name].append(await measure(tenants))
                    continue
                with noise(addresses, keys["A"], rate) as rates:
                    measured[name].append(await measure(tenants))
                answered[name] += rates
    return table_of(measured, answered)


def table_of(
    measured: Mapping[str, Sequence[Latencies]],
    answered: Mapping[str, Sequence[dict[str, float]]],
) -> Table:
    """The medians of all rounds, and how they compare to those without A."""
    title = f"A job's creation by B and C, {QUIET} a second each; A may create {QUOTA} a second"
    table = Table("", *NOISES, title=title)
    for figure in ("p50", "p99"):
        medians = [
            statistics.median(getattr(each, figure) for each in measured[name]) for name in NOISES
        ]
        table.add_row(figure, *(f"{ms:.2f} ms (x {ms / medians[0]:.2f})" for ms in medians))
    for outcome in ("OK", "RESOURCE_EXHAUSTED"):
        rates = [
            statistics.median([each.get(outcome, 0.0) for each in answered[name]] or [0.0])
            for name in NOISES
        ]
        table.add_row(f"A's calls: {outcome}", *(f"{rate:.0f} a second" for rate in rates))
    return table


def main() -> None:
    """Measure everything on a Postgres of its own."""
    configure_logging(log_level="warning")
    with (
        tempfile.TemporaryDirectory(prefix="taskforge-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="taskforge-logs-") as logs,
    ):
        # Postgres runs as nobody where this runs as root.
        Path(folder).chmod(0o755)
        with Deployment(Path(folder), Path(logs)) as deployment:
            replicas = deployment.add("job_service", "job_service", "scheduler_service")
            addresses = [each.address for each in replicas if each.service == "job_service"]
            Console().print(asyncio.run(measure_all(deployment.postgres.dsn, addresses)))


if __name__ == "__main__":
    main()
