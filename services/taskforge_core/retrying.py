"""What becomes of a job whose attempt has ended: decided here once, applied by `ending`.

Nothing in this module reads a clock, a database or a source of chance, so every case can be tested.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never
from uuid import UUID

from taskforge_core.statuses import AttemptOutcome, JobStatus

DEFAULT_MAX_RETRIES = 2
DEFAULT_RETRY_DELAY = timedelta(seconds=5)
DEFAULT_MAX_RETRY_DELAY = timedelta(hours=1)
DEFAULT_BACKOFF_MULTIPLIER = 2.0
DEFAULT_RETRY_JITTER = 0.1

MAX_ATTEMPTS = 100
"""The most attempts a job can have: it bounds what the list of failed attempts can grow to."""

UNDELIVERED_FREE_RETURNS = 2
"""How many returns of leases that reached no worker cost a job nothing; each further one uses an
attempt, so that a job that no worker can receive does not circle for ever."""

_AT_ONCE = timedelta(0)


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How long a queue's jobs wait between two attempts."""

    delay: timedelta = DEFAULT_RETRY_DELAY
    max_delay: timedelta = DEFAULT_MAX_RETRY_DELAY
    multiplier: float = DEFAULT_BACKOFF_MULTIPLIER
    jitter: float = DEFAULT_RETRY_JITTER

    def wait_after(self, attempt: int, chance: float) -> timedelta:
        """The wait after the failed attempt with this number, counted from 1.

        Args:
            attempt: The attempt's number.
            chance: A number between -1 and 1, drawn at random by the caller.
        """
        ceiling = self.max_delay.total_seconds()
        try:
            grown = self.delay.total_seconds() * self.multiplier ** (attempt - 1)
        except OverflowError:
            grown = ceiling
        return timedelta(seconds=min(ceiling, grown) * (1 + self.jitter * chance))


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """What the decision needs to know of a job whose row is locked."""

    id: str
    queue_id: UUID
    session_id: UUID
    lease_seq: int
    worker_id: str
    attempt_count: int
    max_attempts: int
    undelivered_count: int
    cancel_requested: bool
    started_at: datetime
    now: datetime
    retry_rule: RetryRule


# -- How an attempt can end ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The worker is done; `result` is a JSON document or None."""

    result: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker reports a failure; `detail` is a JSON document or empty."""

    message: str = ""
    detail: str = ""
    retryable: bool = True
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The worker gives the job back unused."""


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The worker wants the job later, unused."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt took longer than it may."""


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """The session fell silent, or no longer lists the lease."""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """The lease never reached its worker."""


Ending = Succeeded | Failed | Released | Snoozed | TimedOut | LeaseExpired | Undelivered


# -- What follows from it -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """What is kept of an attempt that did not succeed."""

    outcome: AttemptOutcome
    message: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """The job ends in `status` and moves to history."""

    status: JobStatus
    result: str | None = None
    failure: FailureRecord | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """The job waits again: for `delay` as SCHEDULED, or not at all as PENDING."""

    delay: timedelta = _AT_ONCE
    uses_attempt: bool = True
    undelivered: bool = False
    failure: FailureRecord | None = None

    @property
    def status(self) -> JobStatus:
        """Where the job stands then."""
        return JobStatus.SCHEDULED if self.delay > _AT_ONCE else JobStatus.PENDING


Decision = Finish | Return


def decide(job: LeasedJob, ending: Ending, chance: float) -> Decision:
    """What becomes of a job.

    A job whose cancellation was asked for is never tried again: only success ends it otherwise.

    Args:
        job: The job as its locked row has it.
        ending: How the attempt ended.
        chance: A number between -1 and 1, drawn at random, for the jitter.
    """
    if job.cancel_requested and not isinstance(ending, Succeeded):
        return Finish(JobStatus.CANCELLED, failure=_cancelled(ending))
    match ending:
        case Succeeded(result):
            return Finish(JobStatus.SUCCEEDED, result=result)
        case Failed(message, detail, retryable, retry_after):
            failure = FailureRecord(AttemptOutcome.FAILURE, message, detail)
            if not retryable:
                return Finish(JobStatus.FAILED, failure=failure)
            wait = retry_after
            if wait is None:
                wait = job.retry_rule.wait_after(job.attempt_count, chance)
            return _try_again(job, failure, wait)
        case TimedOut():
            failure = FailureRecord(AttemptOutcome.TIMED_OUT, "ran longer than its timeout")
            return _try_again(job, failure, job.retry_rule.wait_after(job.attempt_count, chance))
        case LeaseExpired():
            failure = FailureRecord(AttemptOutcome.LEASE_EXPIRED, "its worker fell silent")
            return _try_again(job, failure, _AT_ONCE)
        case Undelivered():
            if job.undelivered_count < UNDELIVERED_FREE_RETURNS:
                return Return(uses_attempt=False, undelivered=True)
            failure = FailureRecord(AttemptOutcome.UNDELIVERED, "its lease reached no worker")
            return _try_again(job, failure, _AT_ONCE, undelivered=True)
        case Released():
            return Return(uses_attempt=False)
        case Snoozed(delay):
            return Return(delay=delay, uses_attempt=False)
        case _:
            assert_never(ending)


def _try_again(
    job: LeasedJob, failure: FailureRecord, wait: timedelta, *, undelivered: bool = False
) -> Decision:
    if job.attempt_count >= job.max_attempts:
        return Finish(JobStatus.FAILED, failure=failure)
    return Return(delay=wait, undelivered=undelivered, failure=failure)


def _cancelled(ending: Ending) -> FailureRecord:
    if isinstance(ending, Failed):
        return FailureRecord(AttemptOutcome.CANCELLED, ending.message, ending.detail)
    return FailureRecord(AttemptOutcome.CANCELLED, "cancelled while it ran")
