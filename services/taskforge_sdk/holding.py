"""What the worker holds: the leases whose settle has not been answered.

    take ──▶ waiting ──▶ running ──▶ settling ──▶ forgotten (the settle was answered)
                │           ├──▶ forgotten (lost: the handler is stopped, nothing is settled)
                │           └──▶ timed out ──▶ forgotten (the server says lost)
                └──▶ settling (cancelled or released before it started)

Everything that is not forgotten is listed in each heartbeat.
"""

import asyncio
import enum
import time
from typing import Final

from taskforge.v1 import job_pb2

_REMEMBERED: Final = 10_000
"""How many ended leases are remembered at least: what a session can hold at once."""


class Stop(enum.Enum):
    """Why a handler is told to stop."""

    CANCELLED = "the job was cancelled"
    LOST = "the lease was lost"
    TIMED_OUT = "the attempt timed out"
    LEAVING = "the worker stops"


class Held:
    """A lease that the worker holds, and how far its job is.

    `deadline`: when the attempt times out, by `time.monotonic()`. It is counted from the lease's
    arrival with the database's times alone, since this machine's clock may be wrong.
    `progress`: JSON that no heartbeat has carried yet.
    """

    __slots__ = (
        "deadline", "entered", "job", "progress", "settling", "stop", "task", "timer", "token",
    )  # fmt: skip

    def __init__(self, lease: job_pb2.Lease) -> None:
        self.token = lease.lease_token
        self.job = job = lease.job
        self.stop: Stop | None = None
        self.entered = False
        self.settling = False
        self.progress: str | None = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.deadline: float | None = None
        if job.HasField("timeout_at"):
            granted = job.timeout_at.ToNanoseconds() - job.started_at.ToNanoseconds()
            self.deadline = time.monotonic() + granted / 1e9

    @property
    def log_fields(self) -> dict[str, object]:
        """What a log line about it carries, for logs that keep fields."""
        job = self.job
        return {"job_id": job.id, "job_type": job.job_type, "attempt": job.attempt_count}


class Holdings:
    """The table of what is held, by token."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        # Two generations: forgetting the older one is cheaper than the oldest of one.
        self._ended: set[str] = set()
        self._ended_before: set[str] = set()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, lease: job_pb2.Lease) -> Held | None:
        """Begin to hold a lease; None if it was held before: it must not run twice."""
        token = lease.lease_token
        if token in self._held or token in self._ended or token in self._ended_before:
            return None
        held = self._held[token] = Held(lease)
        return held

    def get(self, token: str) -> Held | None:
        """The lease of this token, if it is held."""
        return self._held.get(token)

    def listed(self) -> list[Held]:
        """All that is held, oldest first."""
        return list(self._held.values())

    def lose(self, token: str) -> None:
        """Hold a lease no longer, since the server says so."""
        self.forget(token)

    def forget(self, token: str) -> None:
        """Hold a lease no longer; should it be delivered (again), it is not run."""
        self._held.pop(token, None)
        if len(self._ended) >= _REMEMBERED:
            self._ended_before, self._ended = self._ended, set()
        self._ended.add(token)
