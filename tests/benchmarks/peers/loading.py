"""What a load script does, whichever system it drives: the orders, the clock, the one answer.

Each script hands `main` its system. It is told what to do by one argument of JSON (`Order`), and
answers with one line of JSON. This module runs in the peers' own environment: it needs nothing but
Python. `loading.mjs` does the same for Node.js.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

_POLL_SECONDS = 0.002
_WARM_UP_CALLS = 50
_WARM_UP_CALLERS = 10
_WARM_UP_BATCH = 100

Note = Callable[[str, float], None]
"""Called where a job's handler begins: its id, and what `sent` says in its payload."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do."""

    do: str
    """`install`, `enqueue`, `pace`, `work` or `drain`."""
    where: str
    """The database; for `empty_call` the server."""
    jobs: int = 0
    callers: int = 1
    batch: int = 0
    """Jobs a call; 0: one by the call for a single job."""
    per_second: float = 0.0
    warm_up: int = 0
    """Jobs before, which do not count."""
    payload_bytes: int = 100
    is_worked_off: bool = False
    """A worker takes the jobs meanwhile."""


class System(Protocol):
    """The system that a script drives, connected."""

    async def install(self) -> None:
        """Make its tables."""

    async def create(self, payloads: list[str]) -> None:
        """Create a job for each, in one call."""

    async def create_one(self, payload: str) -> None:
        """Create a job by the call for a single one."""

    async def start(self, note: Note) -> None:
        """Start its worker."""

    async def stop(self) -> None:
        """Stop the worker."""

    async def left(self) -> int:
        """How many jobs wait, run, or are not settled yet."""


@dataclass(slots=True)
class Runs:
    """What handlers did."""

    expected: int
    are_all: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: so many have begun."""
    first_ns: int = 0
    count: int = 0
    ids: set[str] = field(default_factory=set)
    waits_ms: list[float] = field(default_factory=list)

    def note(self, job: str, sent: float) -> None:
        """A handler begins."""
        now = time.monotonic_ns()
        self.first_ns = self.first_ns or now
        self.count += 1
        self.ids.add(job)
        if sent:
            self.waits_ms.append((now - sent) / 1e6)
        if self.count == self.expected:
            self.are_all.set()


def payload_of(size: int, sent: int = 0) -> str:
    """JSON of so many bytes, with the time of its call."""
    text = (
        f'{{"to":"someone@example.com","template":"welcome","user_id":123456,"sent":{sent},"note":"'
    )
    return text + "x" * (size - len(text) - 2) + '"}'


async def until_settled(system: System) -> int:
    """Wait until no job is left; when that was seen (monotonic ns)."""
    while await system.left():  # noqa: ASYNC110 - only the database knows
        await asyncio.sleep(_POLL_SECONDS)
    return time.monotonic_ns()


async def run_worker(system: System, jobs: int) -> dict[str, Any]:
    """Let the worker run so many jobs, until all are settled."""
    runs = Runs(jobs)
    await system.start(runs.note)
    await runs.are_all.wait()
    ended_ns = await until_settled(system)
    await system.stop()
    return {
        "jobs": runs.count,
        "distinct": len(runs.ids),
        "first_ns": runs.first_ns,
        "ended_ns": ended_ns,
        "waits_ms": runs.waits_ms,
    }


async def create_all(system: System, order: Order, jobs: int, callers: int, batch: int) -> None:
    """Create so many jobs, one call after the other by each caller."""
    left = jobs
    payload = payload_of(order.payload_bytes)

    async def call() -> None:
        nonlocal left
        while left > 0:
            count = min(batch or 1, left)
            left -= count
            sent = time.monotonic_ns() if order.is_worked_off else 0
            one = payload_of(order.payload_bytes, sent) if sent else payload
            await (system.create([one] * count) if batch else system.create_one(one))

    await asyncio.gather(*(call() for _ in range(callers)))


async def warm_up(system: System, order: Order) -> None:
    """What happens before the time is taken: the same by every producer."""
    if not order.warm_up:
        return
    silent = Order(order.do, order.where, payload_bytes=order.payload_bytes)
    await create_all(system, silent, order.warm_up - _WARM_UP_CALLS, 1, _WARM_UP_BATCH)
    await create_all(system, silent, _WARM_UP_CALLS, _WARM_UP_CALLERS, 0)
    if order.is_worked_off:
        await until_settled(system)


async def enqueue(system: System, order: Order) -> dict[str, Any]:
    """Create all jobs as fast as they are taken."""
    await warm_up(system, order)
    first_ns = time.monotonic_ns()
    await create_all(system, order, order.jobs, order.callers, order.batch)
    last_ns = time.monotonic_ns()
    left = 0 if order.is_worked_off else await system.left() - order.warm_up
    return {"first_ns": first_ns, "last_ns": last_ns, "left": left}


async def pace(system: System, order: Order) -> dict[str, Any]:
    """Create jobs one by one at a rate, none while another is under way."""
    await warm_up(system, order)
    due = time.perf_counter()
    for _ in range(order.jobs):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await system.create_one(payload_of(order.payload_bytes, time.monotonic_ns()))
        due = max(due + 1 / order.per_second, time.perf_counter())
    return {}


async def drain(system: System, order: Order) -> dict[str, Any]:
    """Let jobs wait, and then work them off."""
    if order.warm_up:
        await warm_up(system, order)
        await run_worker(system, order.warm_up)
    await create_all(system, order, order.jobs, 1, order.batch)
    return await run_worker(system, order.jobs)


async def carry_out(system: System, order: Order) -> dict[str, Any]:
    """Do what the order says."""
    match order.do:
        case "install":
            await system.install()
            return {}
        case "enqueue":
            return await enqueue(system, order)
        case "pace":
            return await pace(system, order)
        case "drain":
            return await drain(system, order)
        case "work":
            return await run_worker(system, order.warm_up + order.jobs)
    raise ValueError(f"nobody can {order.do}")


def order() -> Order:
    """What the command line says."""
    return Order(**json.loads(sys.argv[1]))


def answer(outcome: dict[str, Any]) -> None:
    """The one line that says what came of it."""
    sys.stdout.write(json.dumps(outcome) + "\n")
    sys.stdout.flush()
