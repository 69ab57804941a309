"""Ends attempts: locks them, lets `retrying` decide, and applies the decisions.

Every way an attempt can end goes through here: a worker's settle, a timeout, a silent session, a
lease that was never delivered.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import orjson
from asyncpg import Record

from taskforge_core.ids import uuid7
from taskforge_core.queries import (
    Executor,
    dead_letter_jobs,
    finish_jobs,
    lock_leases,
    return_jobs,
)
from taskforge_core.retrying import (
    DEFAULT_BACKOFF_MULTIPLIER,
    DEFAULT_MAX_RETRY_DELAY,
    DEFAULT_RETRY_DELAY,
    DEFAULT_RETRY_JITTER,
    Decision,
    Ending,
    FailureRecord,
    Finish,
    LeasedJob,
    RetryRule,
    Return,
    Succeeded,
    decide,
)
from taskforge_core.statuses import STATUS_OF, JobStatus

_Value = TypeVar("_Value")

LeaseKey = tuple[str, int]
"""A job's id as text, and the sequence number of its lease."""


@dataclass(slots=True)
class EndedLease:
    """A lease that was ended, and where its job stands now. Hot, and so not frozen."""

    key: LeaseKey
    queue_id: UUID
    session_id: UUID
    status: JobStatus
    dead_letter_queue_id: UUID | None = None
    """The queue in which a job was made for it, because it failed."""

    @property
    def ready_queue_ids(self) -> set[UUID]:
        """The queues in which a job became ready by it."""
        ready = set() if self.dead_letter_queue_id is None else {self.dead_letter_queue_id}
        if self.status is JobStatus.PENDING:
            ready.add(self.queue_id)
        return ready


async def end_leases(
    executor: Executor,
    project_id: UUID,
    endings: Mapping[LeaseKey, Ending],
    *,
    answered: bool,
) -> list[EndedLease]:
    """End the leases that are still held; those that are not are left out of the answer.

    More than one statement runs unless all endings are successes: call it in a transaction then.

    Args:
        executor: A connection.
        project_id: Owner of all the jobs.
        endings: How each attempt ended.
        answered: Whether a worker's settle ends them, whose answer is kept for its repetition.
    """
    keys = sorted(endings)
    results = [ending.result for ending in endings.values() if isinstance(ending, Succeeded)]
    if len(results) == len(keys):
        # The hot path: nothing to decide, so nothing to lock and read first.
        return await _finish(
            executor,
            project_id,
            keys,
            [JobStatus.SUCCEEDED] * len(keys),
            # In the order of the keys, of which all are there.
            [endings[key].result for key in keys] if any(results) else [],  # type: ignore[union-attr]
            [],
            answered=answered,
        )
    rows = await lock_leases(
        executor, project_id, [key[0] for key in keys], [key[1] for key in keys]
    )
    finishes: list[tuple[LeaseKey, Finish, str | None]] = []
    returns: list[tuple[LeaseKey, Return, str | None]] = []
    holders: dict[LeaseKey, UUID] = {}
    for row in rows:
        job = leased_job(row)
        key = (job.id, job.lease_seq)
        holders[key] = job.session_id
        decision = decide(job, endings[key], random.uniform(-1, 1))
        failure = _failure_entry(job, decision)
        match decision:
            case Finish():
                finishes.append((key, decision, failure))
            case Return():
                returns.append((key, decision, failure))
    ended = await _finish(
        executor,
        project_id,
        [key for key, _, _ in finishes],
        [finish.status for _, finish, _ in finishes],
        [finish.result for _, finish, _ in finishes],
        [failure for _, _, failure in finishes],
        answered=answered,
    )
    ended = await _dead_letter(executor, project_id, ended)
    ended += await _return(executor, project_id, returns, holders, answered=answered)
    return ended


def leased_job(row: Record) -> LeasedJob:
    """A row of `lock_leases` as the decision wants it; unset queue settings mean the defaults."""
    return LeasedJob(
        id=row["id"],
        queue_id=row["queue_id"],
        session_id=row["session_id"],
        lease_seq=row["lease_seq"],
        worker_id=row["worker_id"],
        attempt_count=row["attempt_count"],
        max_attempts=row["max_attempts"],
        undelivered_count=row["undelivered_count"],
        cancel_requested=row["cancel_requested"],
        started_at=row["started_at"],
        now=row["now"],
        retry_rule=RetryRule(
            delay=_or(row["retry_delay"], DEFAULT_RETRY_DELAY),
            max_delay=_or(row["max_retry_delay"], DEFAULT_MAX_RETRY_DELAY),
            multiplier=_or(row["backoff_multiplier"], DEFAULT_BACKOFF_MULTIPLIER),
            jitter=_or(row["retry_jitter"], DEFAULT_RETRY_JITTER),
        ),
    )


def _or(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value


def _failure_entry(job: LeasedJob, decision: Decision) -> str | None:
    """The entry that `attempts` gets. Times are microseconds since 1970, as everywhere in JSON."""
    failure: FailureRecord | None = decision.failure
    if failure is None:
        return None
    return orjson.dumps(
        {
            "number": job.attempt_count,
            "worker_id": job.worker_id,
            "started_at": _microseconds(job.started_at),
            "ended_at": _microseconds(job.now),
            "outcome": failure.outcome,
            "message": failure.message,
            "detail": failure.detail,
        }
    ).decode()


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


async def _finish(
    executor: Executor,
    project_id: UUID,
    keys: Sequence[LeaseKey],
    statuses: Sequence[JobStatus],
    results: Sequence[str | None],
    failures: Sequence[str | None],
    *,
    answered: bool,
) -> list[EndedLease]:
    if not keys:
        return []
    rows = await finish_jobs(
        executor,
        project_id,
        [key[0] for key in keys],
        [key[1] for key in keys],
        statuses,
        results,
        failures,
        answered=answered,
    )
    ended: list[EndedLease] = []
    for row in rows:
        queue_id, session_id, status, places = row.values()
        ended += [
            EndedLease(keys[place - 1], queue_id, session_id, STATUS_OF[status]) for place in places
        ]
    return ended


async def _dead_letter(
    executor: Executor, project_id: UUID, ended: list[EndedLease]
) -> list[EndedLease]:
    """Make the jobs that failed ones leave behind in dead-letter queues, in this transaction."""
    failed = [lease.key[0] for lease in ended if lease.status is JobStatus.FAILED]
    if not failed:
        return ended
    rows = await dead_letter_jobs(executor, project_id, failed, [uuid7() for _ in failed])
    targets = {row["id"]: row["target_id"] for row in rows}
    return [
        replace(lease, dead_letter_queue_id=targets.get(lease.key[0])) if targets else lease
        for lease in ended
    ]


async def _return(
    executor: Executor,
    project_id: UUID,
    returns: Sequence[tuple[LeaseKey, Return, str | None]],
    holders: Mapping[LeaseKey, UUID],
    *,
    answered: bool,
) -> list[EndedLease]:
    if not returns:
        return []
    rows = await return_jobs(
        executor,
        project_id,
        [key[0] for key, _, _ in returns],
        [key[1] for key, _, _ in returns],
        [back.delay for _, back, _ in returns],
        [back.uses_attempt for _, back, _ in returns],
        [back.undelivered for _, back, _ in returns],
        [failure for _, _, failure in returns],
        answered=answered,
    )
    ended = []
    for row in rows:
        key = (row["id"], row["lease_seq"])
        ended.append(EndedLease(key, row["queue_id"], holders[key], STATUS_OF[row["status"]]))
    return ended
