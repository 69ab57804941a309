"""The sessions that a statement leases jobs to: what it is told of them, and what it tells."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from job_service.conversion import Row, lease, timestamp
from job_service.demanding import Demand, Leased
from job_service.queries import SessionTerms, Standing
from taskforge_core.tokens import encode_token

BUSY_SESSION_SECONDS = 0.02
"""How long a session is left out whose row another transaction has locked."""


class Sitting:
    """The calls that a statement leases jobs to, from dealing to delivery."""

    def __init__(self, project_id: UUID, dealt_to: Iterable[Demand]) -> None:
        """`dealt_to` has a call once for each job that it was dealt."""
        self._project = str(project_id)
        dealt = list(dealt_to)
        self._dealt = Counter(demand.session_id for demand in dealt)
        self._demands = {demand.session_id: demand for demand in dealt}
        self._terms_changes = {key: each.terms_changes for key, each in self._demands.items()}
        self._expires_at: dict[UUID, Timestamp] = {}

    @property
    def is_as_dealt(self) -> bool:
        """Whether every call still takes as many jobs as it was dealt."""
        return all(demand.credit >= self._dealt[key] for key, demand in self._demands.items())

    @property
    def terms(self) -> list[SessionTerms]:
        """What the statement checks."""
        return [
            SessionTerms(session_id, each.call_id, each.max_in_flight)
            for session_id, each in self._demands.items()
        ]

    def follow(self, standings: Sequence[Standing]) -> bool:
        """Make the calls go by how their sessions stand.

        Returns:
            Whether all of them could be leased what they were dealt.
        """
        known = {standing.session_id: standing for standing in standings}
        for session_id, demand in self._demands.items():
            _follow(demand, known.get(session_id), self._terms_changes[session_id])
        self._expires_at = {
            standing.session_id: timestamp(standing.expires_at)
            for standing in standings
            if standing.expires_at is not None
        }
        return len(known) == len(self._demands) and all(each.is_admitted for each in standings)

    def lease(
        self, demand: Demand, job_id: UUID, queue_id: str, payload_bytes: int, row: Row
    ) -> Leased:
        """Count a job that was leased to a call, and make the message that tells it so."""
        lease_seq: int = row["lease_seq"]
        token = encode_token(demand.token_head, str(job_id), lease_seq)
        demand.hold(lease_seq, token, payload_bytes)
        message = lease(
            row,
            project_id=self._project,
            queue_id=queue_id,
            worker_id=demand.worker_id,
            token=token,
            expires_at=self._expires_at[demand.session_id],
        )
        return Leased(job_id, lease_seq, message)


def send_all(leases: Iterable[tuple[Demand, Leased]]) -> None:
    """Send each call all that is for it at once."""
    parcels: dict[UUID, list[Leased]] = defaultdict(list)
    calls = {}
    for demand, leased in leases:
        parcels[demand.call_id].append(leased)
        calls[demand.call_id] = demand
    for call_id, parcel in parcels.items():
        calls[call_id].send(parcel)


def _follow(demand: Demand, standing: Standing | None, terms_changes: int) -> None:
    if standing is None:
        # A heartbeat or a rescue has its row right now: the others need not wait for that.
        demand.pause(BUSY_SESSION_SECONDS)
    elif not standing.is_current:
        demand.replace()
    else:
        demand.set_terms(standing.max_in_flight, draining=standing.draining, seen=terms_changes)
        if not standing.may_take:
            demand.pause()
