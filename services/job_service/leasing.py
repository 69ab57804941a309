"""Claims jobs: picks candidates, leases what is still to be had.

LeaseJobs and AcquireJobs share this one path, so both see the same order and the same rules.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record

from job_service.demanding import Demand, Leased, Subscription
from job_service.queries import Seat, claim_jobs, pick_jobs
from job_service.rationing import NO_RATION, record, take_ration, within
from job_service.seating import Sitting
from taskforge_core.database import Database
from taskforge_core.queries import Executor


@dataclass(slots=True)
class Picked:
    """A candidate for a claim. Hot, and so not frozen: that takes four times as long."""

    id: UUID
    queue_id: UUID
    source: Hashable
    """Its queue, or its queue and its type for a subscription to certain types."""
    payload_bytes: int
    message_bytes: int
    """The most that its lease takes in a message."""
    has_limits: bool
    """Whether its queue has limits, as of the pick."""


MESSAGE_OVERHEAD_BYTES = 2560
"""The most that a lease's message takes beside payload, labels and progress: ids and token 300
bytes, job type 100, the worker's label 1,020 (255 characters), trace context 576, times and
numbers 200, and up to 10 for each of 32 labels."""

Hand = tuple[Picked, Demand]
"""A candidate and the call that is to get it."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought."""

    leases: list[tuple[Demand, Leased]]
    """In the order in which they were dealt."""
    full: frozenset[UUID]
    """Queues that had no room for all of the claim's candidates."""
    busy: frozenset[UUID]
    """Queues with limits that another claim held; among `full` too."""
    lost: list[UUID]
    """Candidates that another claim has, or had."""


class Claimer:
    """Turns ready jobs into leases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pick(
        self,
        subscription: Subscription,
        per_source: int,
        limit: int,
        tried: Sequence[UUID],
        full: Sequence[UUID],
        max_message_bytes: int,
    ) -> list[Picked]:
        """Candidates, best first, without those tried before and without those of full queues."""
        rows = await pick_jobs(
            self._database.hot,
            subscription.project_id,
            subscription.queue_ids,
            per_source,
            limit,
            tried,
            subscription.job_types,
            full,
            max_message_bytes - MESSAGE_OVERHEAD_BYTES,
        )
        typed = bool(subscription.job_types)
        return [
            Picked(
                row["id"],
                row["queue_id"],
                (row["queue_id"], row["job_type"]) if typed else row["queue_id"],
                row["payload_bytes"],
                row["message_bytes"] + MESSAGE_OVERHEAD_BYTES,
                row["has_limits"],
            )
            for row in rows
        ]

    async def claim(self, project_id: UUID, hands: Sequence[Hand]) -> Claimed:
        """Lease the candidates that are still ready to the calls that they were dealt to.

        Nothing is leased if one of the calls was replaced, or its session may take nothing or less
        than the call knew: they are told so, and what fell to them is to be dealt anew. The leases
        are counted (`Demand.hold`) in the same step of the event loop in which they become known.
        """
        ration, full = NO_RATION, frozenset[UUID]()
        sitting = Sitting(project_id, (demand for _, demand in hands))
        if any(picked.has_limits for picked, _ in hands):
            async with self._database.hot.acquire() as connection, connection.transaction():
                ration = await take_ration(connection, project_id, [picked for picked, _ in hands])
                hands, full = within(ration, hands)
                sitting = Sitting(project_id, (demand for _, demand in hands))
                rows = await _claim(connection, project_id, hands, ration.locked, sitting)
                await record(connection, project_id, ration, hands, rows or {})
        else:
            rows = await _claim(self._database.hot, project_id, hands, ration.locked, sitting)
        if rows is None:
            return Claimed([], full, ration.busy, [])
        leases: list[tuple[Demand, Leased]] = []
        lost: list[UUID] = []
        queues = {picked.queue_id: str(picked.queue_id) for picked, _ in hands}
        for picked, demand in hands:
            # In the order in which they were dealt, not the one in which they were locked.
            row = rows.get(picked.id)
            if row is None:
                lost.append(picked.id)
                continue
            queue = queues[picked.queue_id]
            leased = sitting.lease(demand, picked.id, queue, picked.payload_bytes, row)
            leases.append((demand, leased))
        return Claimed(leases, full, ration.busy, lost)


async def _claim(
    executor: Executor,
    project_id: UUID,
    hands: Sequence[Hand],
    locked: Set[UUID],
    sitting: Sitting,
) -> dict[UUID, Record] | None:
    """The rows of what was still to be had, by job; None: some session could not take its part."""
    if not hands:
        return {}
    if not sitting.is_as_dealt:
        return None
    seats: dict[Seat, list[UUID]] = defaultdict(list)
    for picked, demand in hands:
        seats[Seat(demand.session_id, demand.worker_id, picked.queue_id)].append(picked.id)
    standings, rows = await claim_jobs(executor, project_id, seats, sorted(locked), sitting.terms)
    return {row["id"]: row for row in rows} if sitting.follow(standings) else None
