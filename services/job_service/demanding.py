"""What one lease call wants: its credit, what its session holds, what waits to be sent to it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from taskforge.v1 import job_pb2

PAUSE_SECONDS = 1.0
"""How long a session that may take nothing is left out, unless its heartbeat comes first."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which jobs a call takes. Calls with equal subscriptions share their claims."""

    project_id: UUID
    queue_ids: tuple[UUID, ...] | None
    """None: every queue of the project, also those made later."""
    job_types: tuple[str, ...]
    """Empty: every type."""


@dataclass(frozen=True, slots=True)
class Leased:
    """A lease that was claimed for a call and waits to be sent."""

    id: UUID
    """The job."""
    lease_seq: int
    message: job_pb2.Lease


@dataclass(slots=True)
class Demand:
    """A LeaseJobs stream, or a waiting AcquireJobs, of one session.

    `held` mirrors the lease rows of the session: a lease enters it before it is sent and leaves it
    only when its row says that it has ended, so the credit can be too small for a moment, never too
    large. Each heartbeat and each notification about the session compares it with the rows.
    """

    subscription: Subscription
    session_id: UUID
    call_id: UUID
    worker_id: str
    is_stream: bool
    token_head: str
    max_in_flight: int
    max_in_flight_bytes: int
    """0: no limit."""
    max_message_bytes: int
    give_back: Callable[[Sequence[Leased]], None]
    """Takes leases that were not sent; no attempt is used."""
    held: dict[int, int] = field(default_factory=dict)
    """Payload bytes by lease sequence."""
    held_bytes: int = 0
    outbox: list[Leased] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Tokens to report as cancelled."""
    lost: set[str] = field(default_factory=set)
    """Tokens to report as lost."""
    told_cancelled: set[int] = field(default_factory=set)
    """Leases whose cancellation was reported before."""
    tokens: dict[int, str] = field(default_factory=dict)
    """The tokens of what is held, to name them when they are lost or cancelled."""
    is_replaced: bool = False
    is_draining: bool = False
    is_closed: bool = False
    paused_until: float = 0.0
    dropped: list[set[int]] = field(default_factory=list)
    """For each reading of the lease rows that is under way: what was dropped since it began."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever there is something for the call to do."""
    unfit: set[UUID] = field(default_factory=set)
    """Jobs whose message turned out to be larger than the client can receive."""
    write_limit: asyncio.Timeout | None = None
    """The time limit of the message that is being sent now."""

    @property
    def project_id(self) -> UUID:
        """Owner of the session."""
        return self.subscription.project_id

    @property
    def is_ended(self) -> bool:
        """It takes no more jobs."""
        return self.is_closed or self.is_replaced or self.is_draining

    @property
    def is_barred(self) -> bool:
        """It takes no jobs now, whatever room it has."""
        return self.is_ended or bool(self.paused_until and time.monotonic() < self.paused_until)

    @property
    def credit(self) -> int:
        """How many more jobs it takes now."""
        if self.is_barred:
            return 0
        return max(0, self.max_in_flight - len(self.held))

    @property
    def byte_credit(self) -> int | None:
        """How many more bytes of payload it takes now; None: any number."""
        if self.max_in_flight_bytes == 0:
            return None
        return max(0, self.max_in_flight_bytes - self.held_bytes)

    def hold(self, lease_seq: int, token: str, payload_bytes: int) -> None:
        """Count a lease; counting it twice changes nothing."""
        if lease_seq not in self.held:
            self.held[lease_seq] = payload_bytes
            self.held_bytes += payload_bytes
            self.tokens[lease_seq] = token

    def drop(self, lease_seq: int) -> str | None:
        """Stop counting a lease that has ended; its token, or None if it was not counted."""
        for dropped in self.dropped:
            dropped.add(lease_seq)
        payload_bytes = self.held.pop(lease_seq, None)
        if payload_bytes is None:
            return None
        self.held_bytes -= payload_bytes
        self.told_cancelled.discard(lease_seq)
        return self.tokens.pop(lease_seq)

    def pause(self) -> None:
        """Take nothing until the session's next heartbeat, or for a second."""
        self.paused_until = time.monotonic() + PAUSE_SECONDS

    def resume(self) -> None:
        """Take jobs again: the session has spoken."""
        self.paused_until = 0.0

    def replace(self) -> None:
        """A newer call of the session took its place."""
        self.is_replaced = True
        self.changed.set()
        limit = self.write_limit
        if limit is not None and not limit.expired():
            # Nobody may be reading any more, and the newer call waits for what is stuck here.
            limit.reschedule(0)

    def drain(self) -> None:
        """The server is leaving."""
        self.is_draining = True
        self.changed.set()

    def send(self, leases: Sequence[Leased]) -> None:
        """Put leases where the call finds them, or back if it has ended meanwhile."""
        if self.is_closed:
            self.give_back(leases)
        else:
            self.outbox.extend(leases)
            self.changed.set()

    def refuse(self, leases: Sequence[Leased]) -> None:
        """Give back leases that are too large for the client, and take their jobs no more."""
        self.unfit.update(leased.id for leased in leases)
        self.give_back(leases)

    def report_cancelled(self, lease_seq: int) -> None:
        """Tell the worker, once, that a job's cancellation was asked for."""
        token = self.tokens.get(lease_seq)
        if token is not None and lease_seq not in self.told_cancelled:
            self.told_cancelled.add(lease_seq)
            self.cancelled.add(token)
            self.changed.set()

    def report_lost(self, lease_seq: int) -> None:
        """Stop counting a lease that ended without its worker, and tell it."""
        token = self.drop(lease_seq)
        if token is not None:
            self.lost.add(token)
            self.changed.set()
