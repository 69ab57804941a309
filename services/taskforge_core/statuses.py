"""Where a job can stand, and every way from one status to another.

```
            create                       lease                    success
  ───────────────────────▶ PENDING ──────────────▶ PROCESSING ──────────▶ SUCCEEDED
       │ scheduled_for > now   ▲   ▲                │   │  │
       ▼                       │   │ release,       │   │  └─ failure, attempts left ─▶ SCHEDULED
   SCHEDULED ────── due ───────┘   │ undelivered    │   │
                                   └────────────────┘   └─ failure, none left ─▶ FAILED
```

A waiting job is cancelled at once, a running one when its worker settles it. Retrying by hand takes
a FAILED job back to PENDING.
"""

from enum import IntEnum


class JobStatus(IntEnum):
    """The numbers are those of the contract and of the tables."""

    PENDING = 1
    SCHEDULED = 2
    PROCESSING = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6


WAITING = frozenset({JobStatus.PENDING, JobStatus.SCHEDULED})
"""Not leased and not finished."""

UNFINISHED = WAITING | {JobStatus.PROCESSING}
"""In the table `jobs`."""

FINISHED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})
"""In the table `job_history`."""

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.PROCESSING, JobStatus.CANCELLED}),
    JobStatus.SCHEDULED: frozenset({JobStatus.PENDING, JobStatus.CANCELLED}),
    JobStatus.PROCESSING: frozenset(JobStatus) - {JobStatus.PROCESSING},
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.PENDING}),
    JobStatus.CANCELLED: frozenset(),
}
"""From each status, where a job can go next."""


STATUS_OF = {int(status): status for status in JobStatus}
"""By their numbers; faster than `JobStatus(number)` by far."""


class AttemptOutcome(IntEnum):
    """How an attempt that did not succeed ended; the numbers are those of the contract."""

    FAILURE = 1
    TIMED_OUT = 2
    LEASE_EXPIRED = 3
    CANCELLED = 4
    UNDELIVERED = 5
