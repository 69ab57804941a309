"""Claims jobs: picks candidates, locks the sessions, leases what is still to be had.

LeaseJobs and AcquireJobs share this one path, so both see the same order and the same rules.
"""

from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record

from job_service.conversion import lease, timestamp
from job_service.dealing import deal
from job_service.demanding import Demand, Leased, Subscription
from job_service.queries import claim_jobs, lock_sessions, pick_jobs
from job_service.rationing import record, take_ration, within
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
        """Lease the candidates that are still ready to those calls that may take them.

        A call that was replaced, or whose session may take nothing now, is told so; one that may
        take less than it was dealt gets no more than that. The leases are
        counted (`Demand.hold`) in the same step of the event loop in which they become known.
        """
        demands = {demand.session_id: demand for _, demand in hands}
        credit_before = {session_id: demand.credit for session_id, demand in demands.items()}
        terms_changes = {session_id: demand.terms_changes for session_id, demand in demands.items()}
        async with self._database.hot.acquire() as connection, connection.transaction():
            ration = await take_ration(connection, project_id, [picked for picked, _ in hands])
            sessions = await lock_sessions(
                connection,
                project_id,
                list(demands),
                [demand.call_id for demand in demands.values()],
            )
            expiries = _admit(sessions, demands, terms_changes)
            if len(expiries) < len(demands) or any(
                demand.credit < credit_before[session_id] for session_id, demand in demands.items()
            ):
                # What was dealt to those who may take less is still the best for the others.
                admitted = [each for each in demands.values() if each.session_id in expiries]
                hands, _ = deal([picked for picked, _ in hands], admitted)
            hands, full = within(ration, hands)
            rows: dict[UUID, Record] = {}
            if hands:
                rows = await _claim(connection, project_id, hands, ration.locked)
                await record(connection, project_id, ration, hands, rows)
        leases: list[tuple[Demand, Leased]] = []
        lost: list[UUID] = []
        project = str(project_id)
        expires_at = {each: timestamp(expiry) for each, expiry in expiries.items()}
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


async def _claim(
    connection: Executor, project_id: UUID, hands: Sequence[Hand], locked: Set[UUID]
) -> dict[UUID, Record]:
    """Lease what is still to be had; rows of `claim_jobs` by their jobs' ids."""
    seats: dict[tuple[UUID, UUID], int] = {}
    workers: list[str] = []
    taken: list[int] = []
    for picked, demand in hands:
        seat = (demand.session_id, picked.queue_id)
        number = seats.setdefault(seat, len(seats) + 1)
        if number > len(workers):
            workers.append(demand.worker_id)
        taken.append(number)
    rows = await claim_jobs(
        connection,
        project_id,
        [picked.id for picked, _ in hands],
        taken if len(seats) > 1 else [],
        [session_id for session_id, _ in seats],
        workers,
        [queue_id for _, queue_id in seats],
        sorted(locked),
    )
    return {row["id"]: row for row in rows}


def _admit(
    sessions: Sequence[Record], demands: dict[UUID, Demand], terms_changes: dict[UUID, int]
) -> dict[UUID, int]:
    """When the leases of each session that may take jobs expire, in microseconds."""
    expiries: dict[UUID, int] = {}
    known = {row["session_id"]: row for row in sessions}
    for session_id, demand in demands.items():
        row = known.get(session_id)
        if row is None:
            # A heartbeat or a rescue has its row right now: the others need not wait for that.
            demand.pause(BUSY_SESSION_SECONDS)
        elif not row["is_current"]:
            demand.replace()
        else:
            demand.set_terms(
                row["max_in_flight"], draining=row["draining"], seen=terms_changes[session_id]
            )
            if row["may_take"]:
                expiries[session_id] = row["expires_at"]
            else:
                demand.pause()
    return expiries
