"""Claims jobs: picks candidates, locks the sessions, leases what is still to be had.

LeaseJobs and AcquireJobs share this one path, so both see the same order and the same rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record

from job_service.conversion import lease
from job_service.demanding import Demand, Leased, Subscription
from job_service.queries import claim_jobs, lock_sessions, pick_jobs
from taskforge_core.database import Database
from taskforge_core.tokens import encode_token


@dataclass(frozen=True, slots=True)
class Picked:
    """A candidate for a claim."""

    id: UUID
    source: tuple[UUID, str | None]
    """Its queue and, for a subscription to certain types, its type."""
    payload_bytes: int


Hand = tuple[Picked, Demand]
"""A candidate and the call that is to get it."""


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
        largest_payload: int,
    ) -> list[Picked]:
        """Candidates, best first, without those that were tried before or are too large."""
        rows = await pick_jobs(
            self._database.hot,
            subscription.project_id,
            subscription.queue_ids,
            per_source,
            limit,
            tried,
            largest_payload,
            subscription.job_types,
        )
        typed = bool(subscription.job_types)
        return [
            Picked(
                row["id"],
                (row["queue_id"], row["job_type"] if typed else None),
                row["payload_bytes"],
            )
            for row in rows
        ]

    async def claim(self, project_id: UUID, hands: Sequence[Hand]) -> list[tuple[Demand, Leased]]:
        """Lease the candidates that are still ready to those calls that may take them.

        A call that was replaced, or whose session may take nothing now, is told so. The leases are
        counted (`Demand.hold`) in the same step of the event loop in which they become known.
        """
        demands = {demand.session_id: demand for _, demand in hands}
        async with self._database.hot.acquire() as connection, connection.transaction():
            sessions = await lock_sessions(
                connection,
                project_id,
                list(demands),
                [demand.call_id for demand in demands.values()],
            )
            expiries = _admit(sessions, demands)
            admitted = [hand for hand in hands if hand[1].session_id in expiries]
            rows: list[Record] = []
            if admitted:
                rows = await claim_jobs(
                    connection,
                    project_id,
                    [picked.id for picked, _ in admitted],
                    [demand.session_id for _, demand in admitted],
                    [demand.worker_id for _, demand in admitted],
                )
        by_id = {row["id"]: row for row in rows}
        project = str(project_id)
        leases = []
        for picked, demand in admitted:
            # In the order in which they were dealt, not the one in which they were locked.
            row = by_id.get(str(picked.id))
            if row is not None:
                lease_seq = row["lease_seq"]
                token = encode_token(demand.token_head, row["id"], lease_seq)
                demand.hold(lease_seq, token, row["payload_bytes"])
                message = lease(row, project, token, expiries[demand.session_id])
                leases.append((demand, Leased(picked.id, lease_seq, message)))
        return leases


def _admit(sessions: Sequence[Record], demands: dict[UUID, Demand]) -> dict[UUID, int]:
    """When the leases of each session that may take jobs expire, in microseconds."""
    expiries: dict[UUID, int] = {}
    known = {row["session_id"]: row for row in sessions}
    for session_id, demand in demands.items():
        row = known.get(session_id)
        if row is None or not row["is_current"]:
            demand.replace()
        elif row["may_take"]:
            expiries[session_id] = row["expires_at"]
        else:
            demand.pause()
    return expiries
