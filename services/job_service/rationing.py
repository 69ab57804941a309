"""Keeps claims within the limits of their queues."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from asyncpg import Record

from job_service.queries import lock_limited_queues, read_room, record_starts
from taskforge_core.queries import Executor


class Rationed(Protocol):
    """Something that takes a place in a queue's limits."""

    @property
    def id(self) -> UUID:
        """The job."""

    @property
    def queue_id(self) -> UUID:
        """The queue."""

    @property
    def has_limits(self) -> bool:
        """Whether the queue had limits when the job was picked."""


RationedT = TypeVar("RationedT", bound=Rationed)
TakerT = TypeVar("TakerT")


@dataclass(frozen=True, slots=True)
class Ration:
    """What queues with limits allow one claim, which holds their locks."""

    room: Mapping[UUID, int]
    """How many more jobs each queue with limits may lease."""
    locked: frozenset[UUID]
    """Queues whose locks are held."""
    busy: frozenset[UUID]
    """Queues that another claim is counting right now."""
    rated: frozenset[UUID]
    """Queues whose starts are to be recorded."""


NO_RATION = Ration({}, frozenset(), frozenset(), frozenset())
"""Of a claim that touches no queue with limits."""


async def take_ration(connection: Executor, project_id: UUID, jobs: Sequence[Rationed]) -> Ration:
    """Lock the limited queues of a claim and see how much room they have.

    It must be the first thing in the claim's transaction: queue locks come before all others.
    """
    limited = sorted({job.queue_id for job in jobs if job.has_limits})
    if not limited:
        return NO_RATION
    locked = await lock_limited_queues(connection, limited)
    rows = await read_room(connection, project_id, locked) if locked else []
    return Ration(
        room={row["id"]: row["room"] for row in rows},
        locked=frozenset(locked),
        busy=frozenset(limited) - frozenset(locked),
        rated=frozenset(row["id"] for row in rows if row["is_rated"]),
    )


def within(
    ration: Ration, hands: Sequence[tuple[RationedT, TakerT]]
) -> tuple[Sequence[tuple[RationedT, TakerT]], frozenset[UUID]]:
    """The hands, in their order, that the ration allows, and the queues that are full with them."""
    if not ration.room and not ration.busy:
        return hands, frozenset()
    left = dict(ration.room)
    allowed = []
    full = set()
    for hand in hands:
        job, _ = hand
        room = 0 if job.queue_id in ration.busy else left.get(job.queue_id)
        if room is None:
            allowed.append(hand)
        elif room > 0:
            left[job.queue_id] = room - 1
            allowed.append(hand)
        else:
            full.add(job.queue_id)
    return allowed, frozenset(full)


async def record(
    connection: Executor,
    project_id: UUID,
    ration: Ration,
    hands: Sequence[tuple[Rationed, object]],
    rows: Mapping[UUID, Record],
) -> None:
    """Note the starts of leases (rows of `claim_jobs` by job) in queues with a rate limit."""
    if not ration.rated or not rows:
        return
    started = Counter(job.queue_id for job, _ in hands if job.id in rows)
    rated = sorted(ration.rated & started.keys())
    if rated:
        # One statement leased them all, at one moment.
        second = next(iter(rows.values()))["started_at"] // 1_000_000
        await record_starts(
            connection, project_id, rated, [started[queue_id] for queue_id in rated], second
        )
