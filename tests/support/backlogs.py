"""A database with many rows of every kind, and a few of them to ask about."""

import random
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from taskforge_core.ids import DEFAULT_ORGANISATION_ID, DEFAULT_PROJECT_ID

PROJECT = DEFAULT_PROJECT_ID
OTHER_PROJECT = UUID(int=0x99)

QUEUES = 300
BACKLOG = 20_000
"""Jobs that wait in the first queue, all of one type but a few."""

RARE = 30
"""Jobs of another type among them."""

SESSIONS = 200
HELD = 10
"""Leases a session has."""

ANY_SIZE = 16 * 1024 * 1024
"""No job is too large for the claims here."""

PARTITIONS = 9
"""Of the history: the days that the migration makes, and the one for the rest."""

FILL = f"""
INSERT INTO taskforge.projects (id, organisation_id, name)
VALUES ('{OTHER_PROJECT}', '{DEFAULT_ORGANISATION_ID}', 'other');

INSERT INTO taskforge.queues (project_id, id, name, priority)
SELECT '{PROJECT}'::uuid, gen_random_uuid(), 'q' || i, CASE WHEN i = 0 THEN 5 ELSE i % 5 END
FROM generate_series(0, {QUEUES - 1}) AS i
UNION ALL
SELECT '{OTHER_PROJECT}'::uuid, gen_random_uuid(), 'q' || i, 5 FROM generate_series(0, 99) AS i;

UPDATE taskforge.queues SET max_concurrent_jobs = 5, rate_limit_per_minute = 60
WHERE name = 'q7' AND project_id = '{PROJECT}';

INSERT INTO taskforge.sessions (project_id, session_id, lease_duration, expires_at, call_id,
    call_is_stream, call_is_open, server_id, max_in_flight)
SELECT '{PROJECT}', gen_random_uuid(), '30 s', clock_timestamp() + interval '1 h',
    gen_random_uuid(), true, true, gen_random_uuid(), 100
FROM generate_series(1, {SESSIONS});

INSERT INTO taskforge.servers (server_id, alive_until, address)
SELECT server_id, clock_timestamp() + interval '1 h', 'here' FROM taskforge.sessions;

CREATE FUNCTION pg_temp.add_jobs(
    project uuid, queue uuid, status int, session uuid, kind text, n int)
RETURNS void LANGUAGE sql AS $$
INSERT INTO taskforge.jobs (project_id, id, queue_id, status, priority, created_at, updated_at,
    scheduled_for, session_id, lease_seq, started_at, attempt_count, max_attempts, payload_bytes,
    job_type, payload)
SELECT project, gen_random_uuid(), queue, status, i % 3, clock_timestamp(), clock_timestamp(),
    CASE WHEN status = 2 THEN clock_timestamp() + interval '1 h' END, session,
    CASE WHEN status = 3 THEN nextval('taskforge.lease_seq') END,
    CASE WHEN status = 3 THEN clock_timestamp() END, (status = 3)::int, 3, 2, kind,
    '{{"a": 1, "b": "some payload of a usual size, which a hundred bytes are, more or less"}}'
FROM generate_series(1, n) AS i
$$;
SELECT pg_temp.add_jobs(project_id, id, 1, NULL, 'common', 10000),
    pg_temp.add_jobs(project_id, id, 1, NULL, 'rare', {RARE}),
    pg_temp.add_jobs(project_id, id, 1, NULL, 'common', {BACKLOG} - 10000),
    pg_temp.add_jobs(project_id, id, 2, NULL, 'common', 2000)
FROM taskforge.queues WHERE name = 'q0' AND project_id = '{PROJECT}';
SELECT pg_temp.add_jobs(project_id, id, 1, NULL, 'common', 10)
FROM taskforge.queues WHERE name <> 'q0';
SELECT pg_temp.add_jobs('{PROJECT}', queue.id, 3, session.session_id, 'common', {HELD})
FROM taskforge.sessions AS session,
    (SELECT id FROM taskforge.queues WHERE name = 'q1' AND project_id = '{PROJECT}') AS queue;

INSERT INTO taskforge.job_history (project_id, id, queue_id, status, priority, created_at,
    updated_at, completed_at, attempt_count, max_attempts, payload_bytes, job_type, payload,
    attempts, last_seq, last_status)
SELECT queue.project_id, gen_random_uuid(), queue.id, 4 + i % 3, 0, clock_timestamp(),
    clock_timestamp(), clock_timestamp() + (i % 9) * interval '1 day', 1, 3, 2, 'common', '{{}}',
    '[]', nextval('taskforge.lease_seq'), 4 + i % 3
FROM taskforge.queues AS queue, generate_series(1, 50) AS i;

INSERT INTO taskforge.request_ids (project_id, request_id, content_hash, job_ids)
SELECT '{PROJECT}', 'r' || i, '\\x00', ARRAY[gen_random_uuid()]
FROM generate_series(1, 20000) AS i;
"""


@dataclass(frozen=True)
class Sample:
    """What the statements are asked about: a few of many."""

    queue_ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(20)])
    backlog: UUID = field(default_factory=uuid4)
    waiting: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(50)])
    session_ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(20)])
    call_ids: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(20)])
    held: list[tuple[str, int]] = field(default_factory=lambda: [(str(uuid4()), 1)] * 50)
    ended: list[tuple[str, int]] = field(default_factory=lambda: [(str(uuid4()), 1)] * 50)
    failed: UUID = field(default_factory=uuid4)
    waiting_queues: list[UUID] = field(default_factory=lambda: [uuid4()])
    """Those of the waiting jobs, aligned with them."""
    limited: UUID = field(default_factory=uuid4)


async def draw(pool: "asyncpg.Pool[Any]") -> Sample:
    """Rows from all over the tables."""

    async def some(query: str, count: int) -> list[Any]:
        rows = sorted(await pool.fetch(query))
        return random.Random(7).sample(
            [row[0] if len(row) == 1 else tuple(row) for row in rows], count
        )

    own = f"WHERE project_id = '{PROJECT}'"
    sessions = await some(f"SELECT session_id, call_id FROM taskforge.sessions {own}", 20)
    held = await some(f"SELECT id::text, lease_seq FROM taskforge.jobs {own} AND status = 3", 50)
    # A claim gets nothing from a queue with limits whose lock it does not hold.
    waiting = await some(
        f"SELECT id FROM taskforge.jobs {own} AND status = 1 AND queue_id NOT IN"
        " (SELECT id FROM taskforge.queues WHERE max_concurrent_jobs IS NOT NULL)",
        50,
    )
    queue_of = {
        row["id"]: row["queue_id"]
        for row in await pool.fetch(
            "SELECT id, queue_id FROM taskforge.jobs WHERE id = ANY($1::uuid[])", waiting
        )
    }
    ended = await some(f"SELECT id::text, last_seq FROM taskforge.job_history {own}", 50)
    return Sample(
        queue_ids=await some(f"SELECT id FROM taskforge.queues {own} AND name <> 'q0'", 20),
        backlog=(await some(f"SELECT id FROM taskforge.queues {own} AND name = 'q0'", 1))[0],
        waiting=waiting,
        waiting_queues=[queue_of[job_id] for job_id in waiting],
        session_ids=[session for session, _ in sorted(sessions)],
        call_ids=[call for _, call in sorted(sessions)],
        held=sorted(held),
        ended=sorted(ended),
        limited=(
            await some(
                f"SELECT id FROM taskforge.queues {own} AND max_concurrent_jobs IS NOT NULL", 1
            )
        )[0],
        failed=(await some(f"SELECT id FROM taskforge.job_history {own} AND status = 5", 1))[0],
    )
