"""Sessions and leases that tests make past the services, and the truth about the counts."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg

from taskforge_core.ids import DEFAULT_PROJECT_ID, uuid7
from taskforge_core.statuses import JobStatus

LeaseKey = tuple[str, int]
"""As in `taskforge_core.ending`: a job's id as text, and the number of its lease."""


class Connection(Protocol):
    """An asyncpg connection or pool."""

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement."""

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run a statement and return its rows."""


async def insert_server(connection: Connection, *, alive_for: timedelta) -> UUID:
    """A replica of job_service; a negative time makes it a dead one."""
    server_id = uuid7()
    await connection.execute(
        "INSERT INTO taskforge.servers (server_id, alive_until, address)"
        " VALUES ($1, clock_timestamp() + $2::interval, 'test')",
        server_id,
        alive_for,
    )
    return server_id


async def insert_session(
    connection: Connection,
    *,
    project_id: UUID = DEFAULT_PROJECT_ID,
    expires_in: timedelta | None = timedelta(seconds=30),
    created_ago: timedelta = timedelta(0),
    server_id: UUID | None = None,
) -> UUID:
    """A worker's session.

    Args:
        connection: Where to insert it.
        project_id: Its project.
        expires_in: When its leases expire; negative: they have. None: it never held any.
        created_ago: Its age.
        server_id: The replica that has its open stream. Default: none, its stream has ended.
    """
    session_id = uuid7()
    await connection.execute(
        "INSERT INTO taskforge.sessions (project_id, session_id, worker_id, lease_duration,"
        " expires_at, call_id, call_is_stream, call_is_open, server_id, max_in_flight, created_at)"
        " VALUES ($1, $2, 'worker', interval '30 seconds', clock_timestamp() + $3::interval,"
        " gen_random_uuid(), true, $4::uuid IS NOT NULL, coalesce($4::uuid, gen_random_uuid()),"
        " 10000, clock_timestamp() - $5::interval)",
        project_id,
        session_id,
        expires_in,
        server_id,
        created_ago,
    )
    return session_id


async def lease(
    connection: Connection,
    ids: Sequence[UUID],
    session_id: UUID,
    *,
    project_id: UUID = DEFAULT_PROJECT_ID,
    times_out_in: timedelta | None = None,
) -> list[LeaseKey]:
    """Lease pending jobs to a session; in the order of `ids`, those that were not pending left out.

    `times_out_in` may be negative: the attempt is overdue then.
    """
    rows = await connection.fetch(
        """
        WITH leased AS (
            UPDATE taskforge.jobs
            SET status = 3, attempt_count = attempt_count + 1, session_id = $3,
                worker_id = 'worker', lease_seq = nextval('taskforge.lease_seq'),
                last_seq = NULL, last_status = NULL, started_at = clock_timestamp(),
                timeout_at = clock_timestamp() + $4::interval
            WHERE project_id = $1 AND id = ANY($2::uuid[]) AND status = 1
            RETURNING id, queue_id, lease_seq
        ), counted AS (
            INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
            SELECT $1, queue_id, change.status, change.sign * count(*)
            FROM leased, (VALUES (1, -1), (3, 1)) AS change (status, sign)
            GROUP BY queue_id, change.status, change.sign
        )
        SELECT id::text AS id, lease_seq FROM leased
        """,
        project_id,
        list(ids),
        session_id,
        times_out_in,
    )
    leased = {row["id"]: row["lease_seq"] for row in rows}
    return [(str(job_id), leased[str(job_id)]) for job_id in ids if str(job_id) in leased]


async def statuses(connection: Connection, ids: Sequence[UUID]) -> list[JobStatus]:
    """Where jobs stand now, in the order of `ids`; a job found twice or nowhere is an error."""
    rows = await connection.fetch(
        "SELECT id, status FROM taskforge.jobs WHERE id = ANY($1::uuid[])"
        " UNION ALL SELECT id, status FROM taskforge.job_history WHERE id = ANY($1::uuid[])",
        list(ids),
    )
    assert len(rows) == len(ids)
    found = {row["id"]: JobStatus(row["status"]) for row in rows}
    return [found[job_id] for job_id in ids]


async def miscounts(connection: Connection) -> list[tuple[Any, ...]]:
    """Where the counts differ from the rows, as (queue, status, counted, there): none should.

    One statement, so one moment, however much is going on.
    """
    return [
        tuple(row)
        for row in await connection.fetch(
            """
            WITH counted AS (
                SELECT queue_id, status, sum(n) AS n
                FROM (
                    SELECT queue_id, status, n FROM taskforge.queue_counts
                    UNION ALL
                    SELECT queue_id, status, n FROM taskforge.queue_deltas
                ) AS parts
                GROUP BY queue_id, status
            ), there AS (
                SELECT queue_id, status, count(*) AS n
                FROM (
                    SELECT queue_id, status FROM taskforge.jobs
                    UNION ALL
                    SELECT queue_id, status FROM taskforge.job_history
                ) AS jobs
                GROUP BY queue_id, status
            )
            SELECT queue_id, status, coalesce(counted.n, 0), coalesce(there.n, 0)
            FROM counted FULL JOIN there USING (queue_id, status)
            WHERE coalesce(counted.n, 0) <> coalesce(there.n, 0)
            """
        )
    ]
