"""Claims jobs: picks candidates, leases what is still to be had.

LeaseJobs and AcquireJobs share this one path, so both see the same order and the same rules.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record
from google.protobuf.timestamp_pb2 import Timestamp

from job_service.conversion import lease, timestamp
from job_service.demanding import Demand, Leased, Subscription
from job_service.queries import Seat, SessionTerms, Standing, claim_jobs, pick_jobs
from job_service.rationing import NO_RATION, record, take_ration, within
from taskforge_core.database import Database
from taskforge_core.queries import Executor
from taskforge_core.tokens import encode_token

BUSY_SESSION_SECONDS = 0.02
"""How long a session is left out whose row another transaction has locked."""


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
        if any(picked.has_limits for picked, _ in hands):
            async with self._database.hot.acquire() as connection, connection.transaction():
                ration = await take_ration(connection, project_id, [picked for picked, _ in hands])
                hands, full = within(ration, hands)
                outcome = await _claim(connection, project_id, hands, ration.locked)
                await record(connection, project_id, ration, hands, outcome.rows)
        else:
            outcome = await _claim(self._database.hot, project_id, hands, ration.locked)
        if not outcome.is_granted:
            return Claimed([], full, ration.busy, [])
        leases: list[tuple[Demand, Leased]] = []
        lost: list[UUID] = []
        project = str(project_id)
        rows, expires_at = outcome.rows, outcome.expires_at
        queues = {picked.queue_id: str(picked.queue_id) for picked, _ in hands}
        for picked, demand in hands:
            # In the order in which they were dealt, not the one in which they were locked.
            row = rows.get(picked.id)
            if row is None:
                lost.append(picked.id)
                continue
            lease_seq = row["lease_seq"]
            token = encode_token(demand.token_head, str(picked.id), lease_seq)
            demand.hold(lease_seq, token, picked.payload_bytes)
            message = lease(
                row,
                project_id=project,
                queue_id=queues[picked.queue_id],
                worker_id=demand.worker_id,
                token=token,
                expires_at=expires_at[demand.session_id],
            )
            leases.append((demand, Leased(picked.id, lease_seq, message)))
        return Claimed(leases, full, ration.busy, lost)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of the statement of a claim."""

    is_granted: bool
    """Whether every session could take what it was dealt."""
    rows: dict[UUID, Record]
    """Those of `claim_jobs`, by their jobs' ids."""
    expires_at: dict[UUID, Timestamp]
    """When the leases of each session expire."""


async def _claim(
    executor: Executor, project_id: UUID, hands: Sequence[Hand], locked: Set[UUID]
) -> _Outcome:
    """Lease what is still to be had, and tell the calls how their sessions stand."""
    if not hands:
        return _Outcome(True, {}, {})
    demands = {demand.session_id: demand for _, demand in hands}
    terms_changes = {session_id: demand.terms_changes for session_id, demand in demands.items()}
    seats: dict[Seat, list[UUID]] = defaultdict(list)
    for picked, demand in hands:
        seats[Seat(demand.session_id, demand.worker_id, picked.queue_id)].append(picked.id)
    dealt = Counter(demand.session_id for _, demand in hands)
    if any(demand.credit < dealt[session_id] for session_id, demand in demands.items()):
        # Something has changed since they were dealt.
        return _Outcome(False, {}, {})
    terms = [SessionTerms(key, each.call_id, each.max_in_flight) for key, each in demands.items()]
    standings, rows = await claim_jobs(executor, project_id, seats, sorted(locked), terms)
    known = {standing.session_id: standing for standing in standings}
    for session_id, demand in demands.items():
        _follow(demand, known.get(session_id), terms_changes[session_id])
    return _Outcome(
        len(known) == len(demands) and all(standing.is_admitted for standing in standings),
        {row["id"]: row for row in rows},
        {
            standing.session_id: timestamp(standing.expires_at)
            for standing in standings
            if standing.expires_at is not None
        },
    )


def _follow(demand: Demand, standing: Standing | None, terms_changes: int) -> None:
    """Make a call go by how its session stands."""
    if standing is None:
        # A heartbeat or a rescue has its row right now: the others need not wait for that.
        demand.pause(BUSY_SESSION_SECONDS)
    elif not standing.is_current:
        demand.replace()
    else:
        demand.set_terms(standing.max_in_flight, draining=standing.draining, seen=terms_changes)
        if not standing.may_take:
            demand.pause()
