"""The hot statements of the job service: one a file, each a function of the same name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, chain
from typing import NamedTuple
from uuid import UUID

import orjson
from asyncpg import Record

from taskforge_core.queries import Executor, Statements

_statements = Statements(__name__)

LIST_WORKERS = _statements["list_workers"]
"""See `list_workers.sql`; it runs on the engine for browsing, which binds its names."""


async def insert_jobs(
    executor: Executor, project_id: UUID, columns: Sequence[Sequence[object]]
) -> list[Record]:
    """See `insert_jobs.sql`; `columns` are its arrays in their order, one value a job in each.

    Returns `ids, status, max_attempts, created_at, scheduled_for` of the jobs that were created;
    times are microseconds.
    """
    return await executor.fetch(_statements["insert_jobs"], project_id, *columns)


async def insert_leased_jobs(
    executor: Executor,
    project_id: UUID,
    columns: Sequence[Sequence[object]],
    sessions: Sequence["SessionTerms"],
    seats: Sequence[tuple[UUID, UUID, str]],
    queue_ids: Sequence[UUID] | None,
    job_types: Sequence[str],
) -> tuple[list["Standing"], list[Record]]:
    """See `insert_leased_jobs.sql`; `columns` as for `insert_jobs`.

    `seats` are the jobs that were dealt, each with its session and that one's worker.

    Returns how the sessions stand, without those that others have locked, and of each job that was
    created `id, status, max_attempts, created_at, scheduled_for, lease_seq, timeout_at`; times are
    microseconds.
    """
    rows = await executor.fetch(
        _statements["insert_leased_jobs"],
        project_id,
        *columns,
        [each.session_id for each in sessions],
        [each.call_id for each in sessions],
        [each.max_in_flight for each in sessions],
        [job_id for job_id, _, _ in seats],
        [session_id for _, session_id, _ in seats],
        [worker_id for _, _, worker_id in seats],
        queue_ids,
        job_types,
    )
    return _standings_apart(rows)


async def find_requests(
    executor: Executor, project_id: UUID, request_ids: Sequence[str]
) -> list[Record]:
    """See `find_requests.sql`. Returns `request_id, content_hash, job_ids, errors`."""
    return await executor.fetch(_statements["find_requests"], project_id, request_ids)


async def remember_request(
    executor: Executor,
    project_id: UUID,
    request_id: str,
    content_hash: bytes,
    job_ids: Sequence[UUID | None],
    errors: bytes | None,
) -> bool:
    """See `remember_request.sql`. False: another creation has this request_id."""
    rows = await executor.fetch(
        _statements["remember_request"], project_id, request_id, content_hash, job_ids, errors
    )
    return bool(rows)


async def read_queue_rules(
    executor: Executor, project_id: UUID, queue_ids: Sequence[UUID]
) -> list[Record]:
    """See `read_queue_rules.sql`. Returns `id, accepts_jobs, max_payload_bytes`."""
    return await executor.fetch(_statements["read_queue_rules"], project_id, queue_ids)


async def list_queue_names(executor: Executor, project_id: UUID) -> list[Record]:
    """See `list_queue_names.sql`. Returns `id, name`."""
    return await executor.fetch(_statements["list_queue_names"], project_id)


async def open_call(
    executor: Executor,
    project_id: UUID,
    session_id: UUID,
    worker_id: str,
    lease_duration: timedelta,
    call_id: UUID,
    is_stream: bool,
    server_id: UUID,
    max_in_flight: int,
) -> bool:
    """See `open_call.sql`. False: the session has a stream, so it gets nothing by AcquireJobs."""
    rows = await executor.fetch(
        _statements["open_call"],
        project_id,
        session_id,
        worker_id,
        lease_duration,
        call_id,
        is_stream,
        server_id,
        max_in_flight,
    )
    return bool(rows)


async def close_call(executor: Executor, project_id: UUID, session_id: UUID, call_id: UUID) -> None:
    """See `close_call.sql`."""
    await executor.fetch(_statements["close_call"], project_id, session_id, call_id)


async def list_held_leases(
    executor: Executor, project_id: UUID, session_ids: Sequence[UUID]
) -> list[Record]:
    """See `list_held_leases.sql`.

    Returns `session_id, id, lease_seq, payload_bytes, cancel_requested, age`.
    """
    return await executor.fetch(_statements["list_held_leases"], project_id, session_ids)


async def pick_jobs(
    executor: Executor,
    project_id: UUID,
    queue_ids: Sequence[UUID] | None,
    per_source: int,
    limit: int,
    tried: Sequence[UUID],
    job_types: Sequence[str],
    full: Sequence[UUID],
    max_bytes: int,
) -> list[Record]:
    """See `pick_jobs.sql` and, where `job_types` are given, `pick_jobs_of_types.sql`.

    Returns `id, queue_id, payload_bytes, message_bytes, has_limits` and, with types, `job_type`,
    best first.
    """
    if job_types:
        return await executor.fetch(
            _statements["pick_jobs_of_types"],
            project_id,
            queue_ids,
            per_source,
            limit,
            tried,
            full,
            max_bytes,
            job_types,
        )
    return await executor.fetch(
        _statements["pick_jobs"],
        project_id,
        queue_ids,
        per_source,
        limit,
        tried,
        full,
        max_bytes,
    )


class Seat(NamedTuple):
    """Whom jobs of one queue are leased to."""

    session_id: UUID
    worker_id: str
    queue_id: UUID


class SessionTerms(NamedTuple):
    """A session that a claim is for, as the claim was dealt."""

    session_id: UUID
    call_id: UUID
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a session stands in the moment of a claim."""

    session_id: UUID
    is_current: bool
    """Whether its current call is the one of the claim."""
    may_take: bool
    is_as_dealt: bool
    """Whether it may hold as many leases as the claim was dealt by."""
    expires_at: int | None
    """When its leases expire, in microseconds; None if it never had one."""
    max_in_flight: int
    draining: bool

    @property
    def is_admitted(self) -> bool:
        """Whether the claim could go on as far as this session is concerned."""
        return self.may_take and self.is_as_dealt


async def claim_jobs(
    executor: Executor,
    project_id: UUID,
    hands: Mapping[Seat, Sequence[UUID]],
    limited: Sequence[UUID],
    sessions: Sequence[SessionTerms],
) -> tuple[list[Standing], list[Record]]:
    """See `claim_jobs.sql`; `hands` are the jobs of each seat.

    Returns how the sessions stand, without those that others have locked, and of each lease what
    its message needs; times are microseconds.
    """
    lasts = list(accumulate(map(len, hands.values())))
    rows = await executor.fetch(
        _statements["claim_jobs"],
        project_id,
        list(chain.from_iterable(hands.values())),
        [last - len(ids) + 1 for last, ids in zip(lasts, hands.values(), strict=True)],
        lasts,
        [seat.session_id for seat in hands],
        [seat.worker_id for seat in hands],
        [seat.queue_id for seat in hands],
        limited,
        [each.session_id for each in sessions],
        [each.call_id for each in sessions],
        [each.max_in_flight for each in sessions],
    )
    return _standings_apart(rows)


def _standings_apart(rows: Sequence[Record]) -> tuple[list["Standing"], list[Record]]:
    """Tell the rows of sessions from those of jobs, which come first."""
    jobs = next((at for at, row in enumerate(rows) if row["id"] is None), len(rows))
    return [_standing(row["session"]) for row in rows[jobs:]], list(rows[:jobs])


def _standing(text: str) -> Standing:
    told = orjson.loads(text)
    return Standing(**told | {"session_id": UUID(told["session_id"])})


async def find_settled(
    executor: Executor, project_id: UUID, ids: Sequence[str], lease_seqs: Sequence[int]
) -> list[Record]:
    """See `find_settled.sql`. Returns `id, lease_seq, status`."""
    return await executor.fetch(_statements["find_settled"], project_id, ids, lease_seqs)


async def lock_beating_sessions(
    executor: Executor, project_id: UUID, session_ids: Sequence[UUID]
) -> list[Record]:
    """See `lock_beating_sessions.sql`."""
    return await executor.fetch(_statements["lock_beating_sessions"], project_id, session_ids)


async def renew_sessions(
    executor: Executor,
    project_id: UUID,
    session_ids: Sequence[UUID],
    sequences: Sequence[int],
    listed: Sequence[str],
    omitted: Sequence[str],
) -> list[Record]:
    """See `renew_sessions.sql`. Returns `session_id, expires_at`."""
    return await executor.fetch(
        _statements["renew_sessions"], project_id, session_ids, sequences, listed, omitted
    )


async def report_progress(
    executor: Executor,
    project_id: UUID,
    ids: Sequence[str],
    lease_seqs: Sequence[int],
    progress: Sequence[str],
) -> None:
    """See `report_progress.sql`. Give `ids` ascending: it is the order in which rows are locked."""
    await executor.fetch(_statements["report_progress"], project_id, ids, lease_seqs, progress)


async def renew_server(
    executor: Executor, server_id: UUID, alive_for: timedelta, address: str
) -> None:
    """See `renew_server.sql`."""
    await executor.fetch(_statements["renew_server"], server_id, alive_for, address)


async def remove_server(executor: Executor, server_id: UUID) -> None:
    """See `remove_server.sql`."""
    await executor.fetch(_statements["remove_server"], server_id)


async def lock_job(executor: Executor, project_id: UUID, job_id: UUID) -> Record | None:
    """See `lock_job.sql`. Returns `status, session_id, cancel_requested_at`, or None."""
    rows = await executor.fetch(_statements["lock_job"], project_id, job_id)
    return rows[0] if rows else None


async def request_cancel(executor: Executor, project_id: UUID, job_id: UUID) -> None:
    """See `request_cancel.sql`."""
    await executor.fetch(_statements["request_cancel"], project_id, job_id)


async def revive_job(
    executor: Executor, project_id: UUID, job_id: UUID, additional_attempts: int
) -> UUID | None:
    """See `revive_job.sql`. Returns the queue's id; None: it cannot be tried again."""
    rows = await executor.fetch(_statements["revive_job"], project_id, job_id, additional_attempts)
    queue_id: UUID | None = rows[0]["queue_id"] if rows else None
    return queue_id


async def read_session(executor: Executor, project_id: UUID, session_id: UUID) -> Record | None:
    """See `read_session.sql`. Returns `call_id, max_in_flight, draining`; None: there is none."""
    rows = await executor.fetch(_statements["read_session"], project_id, session_id)
    return rows[0] if rows else None


async def update_session(
    executor: Executor,
    project_id: UUID,
    session_id: UUID,
    max_in_flight: int | None,
    draining: bool | None,
) -> bool:
    """See `update_session.sql`. False: there is no such session."""
    rows = await executor.fetch(
        _statements["update_session"], project_id, session_id, max_in_flight, draining
    )
    return bool(rows)


async def lock_limited_queues(executor: Executor, queue_ids: Sequence[UUID]) -> list[UUID]:
    """See `lock_limited_queues.sql`. Returns the queues that are locked now."""
    rows = await executor.fetch(_statements["lock_limited_queues"], queue_ids)
    return [row["id"] for row in rows]


async def read_room(
    executor: Executor, project_id: UUID, queue_ids: Sequence[UUID]
) -> list[Record]:
    """See `read_room.sql`. Returns `id, is_rated, room` of those that have limits."""
    return await executor.fetch(_statements["read_room"], project_id, queue_ids)


async def record_starts(
    executor: Executor,
    project_id: UUID,
    queue_ids: Sequence[UUID],
    starts: Sequence[int],
    second: int,
) -> None:
    """See `record_starts.sql`."""
    await executor.fetch(_statements["record_starts"], project_id, queue_ids, starts, second)


async def withdraw_jobs(
    executor: Executor, project_id: UUID, limit: int, wanted: int, wanted_first: int
) -> tuple[int, float]:
    """See `withdraw_jobs.sql`. Returns how many were granted, and what room is left."""
    [row] = await executor.fetch(
        _statements["withdraw_jobs"], project_id, limit, wanted, wanted_first
    )
    return row["granted"], row["room"]


async def lock_backlog(executor: Executor, project_id: UUID) -> None:
    """See `lock_backlog.sql`."""
    await executor.fetch(_statements["lock_backlog"], project_id)


async def count_backlog(executor: Executor, project_id: UUID) -> int:
    """See `count_backlog.sql`."""
    [row] = await executor.fetch(_statements["count_backlog"], project_id)
    jobs: int = row["jobs"]
    return jobs


async def lock_streams(executor: Executor, project_id: UUID) -> None:
    """See `lock_streams.sql`."""
    await executor.fetch(_statements["lock_streams"], project_id)


async def count_streams(
    executor: Executor, project_id: UUID, session_ids: Sequence[UUID], most: int
) -> tuple[int, list[UUID]]:
    """See `count_streams.sql`. Returns how many others there are, and which of the named."""
    [row] = await executor.fetch(_statements["count_streams"], project_id, session_ids, most)
    return row["others"], row["named"]
