"""A page of the largest items that there can be is an answer that a client can read."""

from typing import Any

import pytest
from tests.support.rpcs import Contract, message
from tests.support.tenants import Tenant, bearer

from taskforge_core.database import Database

COUNT = 1100
"""More than a page may have."""

_WIDE = "\U0001f4a5"
"""Four bytes a character."""

QUEUES = """
INSERT INTO taskforge.queues (project_id, id, name, description)
SELECT $1, gen_random_uuid(), rpad('q' || n, 100, 'x'), $3 FROM generate_series(1, $2) AS n
"""

AUDIT_ENTRIES = """
INSERT INTO taskforge.audit_log
    (organisation_id, project_id, actor, action, target, detail, request_id)
SELECT organisation_id, $1, 'key', 'UpdateQueue', 'queues/1',
    jsonb_build_object('description', $3::text), ''
FROM taskforge.projects, generate_series(1, $2) WHERE id = $1
"""

WORKERS = """
WITH made AS (
    INSERT INTO taskforge.sessions (project_id, session_id, worker_id, lease_duration, expires_at,
        call_id, call_is_stream, call_is_open, server_id, max_in_flight)
    SELECT $1, gen_random_uuid(), $3 || n, interval '1 hour', now() + interval '1 hour',
        gen_random_uuid(), false, false, gen_random_uuid(), 100
    FROM generate_series(1, $2) AS n RETURNING session_id
), queue AS (
    INSERT INTO taskforge.queues (project_id, id, name) VALUES ($1, gen_random_uuid(), 'q')
    RETURNING id
)
INSERT INTO taskforge.jobs (project_id, id, queue_id, status, priority, created_at, updated_at,
    session_id, lease_seq, attempt_count, max_attempts, payload_bytes, job_type, payload)
SELECT $1, gen_random_uuid(), queue.id, 3, 0, now(), now(), made.session_id,
    nextval('taskforge.lease_seq'), 1, 3, 2, 'send', '{}'
FROM made, queue, generate_series(1, 100)
"""
"""Each holds as many jobs as its row shows."""

JOBS = """
WITH queue AS (
    INSERT INTO taskforge.queues (project_id, id, name) VALUES ($1, gen_random_uuid(), 'q')
    RETURNING id
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, id, 4, $2 FROM queue
)
INSERT INTO taskforge.job_history (project_id, id, queue_id, status, priority, created_at,
    updated_at, started_at, completed_at, attempt_count, max_attempts, payload_bytes, job_type,
    payload, attempts, worker_id, traceparent, tracestate, origin_job_id, origin_queue_id,
    origin_failed_at)
SELECT $1, gen_random_uuid(), queue.id, 4, 0, now(), now(), now(), now(), 1, 3, 2092,
    rpad('s', 100, 's'), to_json(rpad('x', 2090, 'x')), '[]', $3, rpad('t', 64, 't'),
    rpad('t', 512, 't'), gen_random_uuid(), gen_random_uuid(), now()
FROM queue, generate_series(1, $2)
"""


async def list_all(contract: Contract, name: str, tenant: Tenant, items: str) -> int:
    """How many items all pages have together, each as large as may be asked for."""
    token, found = "", 0
    while True:
        sent = message(name, page_size=1000, page_token=token)
        page: Any = await contract.raw(name, bearer(tenant.key), sent)
        found += len(getattr(page, items))
        token = page.next_page_token
        if not token:
            return found


@pytest.mark.parametrize(
    ("name", "items", "insert", "text"),
    [
        ("ListQueues", "queues", QUEUES, _WIDE * 1000),
        ("ListAuditEntries", "entries", AUDIT_ENTRIES, "\x01" * 1000),
        ("ListWorkers", "workers", WORKERS, _WIDE * 250),
        ("ListJobs", "jobs", JOBS, _WIDE * 255),
    ],
)
async def test_a_page_of_the_largest_items_fits_into_a_message(
    contract: Contract,
    database: Database,
    own: Tenant,
    name: str,
    items: str,
    insert: str,
    text: str,
) -> None:
    await database.hot.execute(insert, own.project_id, COUNT, text)
    assert await list_all(contract, name, own, items) == COUNT
