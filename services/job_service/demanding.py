"""What one lease call wants: its credit, what its session holds, what waits to be sent to it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from job_service.arriving import Arrivals
from taskforge.v1 import job_pb2

PAUSE_SECONDS = 1.0
"""How long a session that may take nothing is left out, unless its heartbeat comes first."""


BRIEFLY = 0.1
"""Seconds: a pause below it is for a locked row, not for a session that must speak first."""

LARGEST_MESSAGE_BYTES = 2 * 1024 * 1024
"""No lease takes more: a payload has 1 MiB at most, labels and progress far less."""

_FIELD_BYTES = 8
"""Tag and length before each lease in its message, at most."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which jobs a call takes. Calls with equal subscriptions share their claims."""

    project_id: UUID
    queue_ids: tuple[UUID, ...] | None
    """None: every queue of the project, also those made later."""
    job_types: tuple[str, ...]
    """Empty: every type."""


@dataclass(slots=True)
class Leased:
    """A lease that was claimed for a call and waits to be sent. Hot, and so not frozen."""

    id: UUID
    """The job."""
    lease_seq: int
    message: job_pb2.Lease
    size: int = field(init=False, compare=False)
    """The bytes that it takes in a message."""

    def __post_init__(self) -> None:
        """Measure it once: that takes a while."""
        self.size = self.message.ByteSize() + _FIELD_BYTES


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
    """Takes the leases that come when the call has ended."""
    held: dict[int, int] = field(default_factory=dict)
    """Payload bytes by lease sequence."""
    held_bytes: int = 0
    outbox: list[Leased] = field(default_factory=list)
    """What waits to be sent."""
    unsent: dict[int, int] = field(default_factory=dict)
    """The bytes of what waits to be sent or is being written, by lease sequence."""
    unsent_bytes: int = 0
    arrivals: Arrivals = field(default_factory=Arrivals)
    """Of what this call has sent."""
    cancelled: set[str] = field(default_factory=set)
    """Tokens to report as cancelled."""
    lost: set[str] = field(default_factory=set)
    """Tokens to report as lost."""
    told_cancelled: set[int] = field(default_factory=set)
    """Leases whose cancellation was reported before."""
    tokens: dict[int, str] = field(default_factory=dict)
    """The tokens of what is held, to name them when they are lost or cancelled."""
    takes_jobs: bool = True
    """False: the session was told to take no more (UpdateWorker)."""
    terms_changes: int = 0
    """How often `max_in_flight` or `takes_jobs` were changed."""
    queues: tuple[str, ...] = ()
    """The names and ids by which its request called its queues; none: it takes from all."""
    is_replaced: bool = False
    is_draining: bool = False
    is_closed: bool = False
    paused_until: float = 0.0
    dropped: list[set[int]] = field(default_factory=list)
    """For each reading of the lease rows that is under way: what was dropped since it began."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever there is something for the call to do."""
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
    def may_take(self) -> bool:
        """Whether it takes jobs at all now, room or not."""
        return not self.is_ended and self.takes_jobs and time.monotonic() >= self.paused_until

    @property
    def is_paused_briefly(self) -> bool:
        """Whether it was left out because its session's row was locked."""
        return 0 < self.paused_until - time.monotonic() < BRIEFLY

    @property
    def credit(self) -> int:
        """How many more jobs it takes now."""
        if not self.may_take or self.is_congested:
            return 0
        return max(0, self.max_in_flight - len(self.held))

    @property
    def unsent_room(self) -> int:
        """How many more bytes of messages it takes before it has sent some.

        Two of the largest messages in all: then one can be claimed while another is written, and
        what a slow link keeps here is bounded in memory and in time.
        """
        return 2 * self._largest_message_bytes - self.unsent_bytes

    @property
    def is_congested(self) -> bool:
        """Whether it must send first: some lease might not find room. (One always does then.)"""
        return self.unsent_room < self._largest_message_bytes

    @property
    def _largest_message_bytes(self) -> int:
        return min(self.max_message_bytes, LARGEST_MESSAGE_BYTES)

    @property
    def takes_any_job(self) -> bool:
        """Whether any job of its queues is for it now, whatever its type and size."""
        return (
            self.credit > 0
            and not self.subscription.job_types
            and self.max_in_flight_bytes == 0
            and self.max_message_bytes >= LARGEST_MESSAGE_BYTES
        )

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

    def learn_token(self, lease_seq: int, token: str) -> None:
        """The worker knows a lease by this token: one that it got by AcquireJobs before it opened
        its stream has another than this call would give it."""
        if lease_seq in self.tokens:
            self.tokens[lease_seq] = token

    def drop(self, lease_seq: int) -> str | None:
        """Stop counting a lease that has ended; its token, or None if it was not counted."""
        for dropped in self.dropped:
            dropped.add(lease_seq)
        if lease_seq in self.unsent:
            self._withdraw(lease_seq)
        self.arrivals.ended(lease_seq, time.monotonic())
        payload_bytes = self.held.pop(lease_seq, None)
        if payload_bytes is None:
            return None
        self.held_bytes -= payload_bytes
        if self.told_cancelled:
            self.told_cancelled.discard(lease_seq)
        return self.tokens.pop(lease_seq)

    def set_terms(self, max_in_flight: int, *, draining: bool, seen: int) -> bool:
        """Take over what the session's row says.

        Args:
            max_in_flight: As the row says.
            draining: As the row says.
            seen: `terms_changes` at a moment before the row was read.

        Returns:
            Whether the call goes by the row now. False: it went by another reading meanwhile, and
            which of the two is the newer one nobody knows: read again.
        """
        if (max_in_flight, draining) == (self.max_in_flight, not self.takes_jobs):
            return True
        if seen != self.terms_changes:
            return False
        self.max_in_flight, self.takes_jobs = max_in_flight, not draining
        self.terms_changes += 1
        return True

    def pause(self, seconds: float = PAUSE_SECONDS) -> None:
        """Take nothing until the session's next heartbeat, or for so long."""
        self.paused_until = time.monotonic() + seconds

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
            for leased in leases:
                self.unsent[leased.lease_seq] = size = leased.size
                self.unsent_bytes += size
            self.changed.set()

    def take(self, count: int) -> list[Leased]:
        """The first leases of the outbox, to be written now; they are unsent until `sent`."""
        leases = self.outbox[:count]
        del self.outbox[:count]
        return leases

    def sent(self, leases: Sequence[Leased]) -> None:
        """These are on their way to the worker."""
        now = time.monotonic()
        for leased in leases:
            size = self.unsent.pop(leased.lease_seq)
            self.unsent_bytes -= size
            if leased.lease_seq in self.held:
                self.arrivals.sent(leased.lease_seq, size, now)

    def take_cancelled(self) -> set[str]:
        """The tokens to report as cancelled now: not those that the worker has yet to receive."""
        waiting = (
            {leased.message.lease_token for leased in self.outbox} if self.cancelled else set()
        )
        telling, self.cancelled = self.cancelled - waiting, self.cancelled & waiting
        return telling

    def report_cancelled(self, lease_seq: int) -> None:
        """Tell the worker, once, that a job's cancellation was asked for."""
        token = self.tokens.get(lease_seq)
        if token is not None and lease_seq not in self.told_cancelled:
            self.told_cancelled.add(lease_seq)
            self.cancelled.add(token)
            self.changed.set()

    def report_lost(self, lease_seq: int) -> None:
        """Stop counting a lease that ended without its worker, and tell it, unless it was never
        sent: then it does not know of it."""
        was_withdrawn = self._withdraw(lease_seq)
        self.arrivals.forget(lease_seq)
        token = self.drop(lease_seq)
        if token is not None and not was_withdrawn:
            self.lost.add(token)
            self.changed.set()

    def _withdraw(self, lease_seq: int) -> bool:
        """Send a lease no more; False: there is nothing to withdraw, or it is being written."""
        if lease_seq not in self.unsent:
            return False
        left = [leased for leased in self.outbox if leased.lease_seq != lease_seq]
        if len(left) == len(self.outbox):
            return False
        self.outbox = left
        self.unsent_bytes -= self.unsent.pop(lease_seq)
        return True
