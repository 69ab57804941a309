"""A page of the largest items that there can be is an answer that a client can read."""

from typing import Any

from tests.support.rpcs import Contract, message
from tests.support.tenants import Tenant, bearer

from taskforge_core.database import Database

LONGEST_TEXT = "\U0001f4a5" * 1000


async def list_all(contract: Contract, name: str, tenant: Tenant, items: str) -> int:
    """How many items all pages have, of the largest size, by the number of pages."""
    token, found = "", 0
    while True:
        sent = message(name, page_size=1000, page_token=token)
        page: Any = await contract.raw(name, bearer(tenant.key), sent)
        found += len(getattr(page, items))
        token = page.next_page_token
        if not token:
            return found


async def test_a_page_of_queues_fits_into_a_message(
    contract: Contract, database: Database, own: Tenant
) -> None:
    await database.hot.execute(
        "INSERT INTO taskforge.queues (project_id, id, name, description)"
        " SELECT $1, gen_random_uuid(), rpad('q' || n, 100, 'x'), $2"
        " FROM generate_series(1, 1100) AS n",
        own.project_id,
        LONGEST_TEXT,
    )
    assert await list_all(contract, "ListQueues", own, "queues") == 1100


async def test_a_page_of_audit_entries_fits_into_a_message(
    contract: Contract, database: Database, own: Tenant
) -> None:
    await database.hot.execute(
        "INSERT INTO taskforge.audit_log"
        " (organisation_id, project_id, actor, action, target, detail, request_id)"
        " SELECT $1, $2, 'key', 'UpdateQueue', 'queues/1',"
        " jsonb_build_object('description', $3::text), ''"
        " FROM generate_series(1, 1100)",
        own.organisation_id,
        own.project_id,
        "\x01" * 1000,
    )
    assert await list_all(contract, "ListAuditEntries", own, "entries") == 1100


async def test_a_page_of_workers_fits_into_a_message(
    contract: Contract, database: Database, own: Tenant
) -> None:
    await database.hot.execute(
        "WITH made AS ("
        " INSERT INTO taskforge.sessions (project_id, session_id, worker_id, lease_duration,"
        " expires_at, call_id, call_is_stream, call_is_open, server_id, max_in_flight)"
        " SELECT $1, gen_random_uuid(), $2 || n, interval '1 hour', now() + interval '1 hour',"
        " gen_random_uuid(), false, false, gen_random_uuid(), 100"
        " FROM generate_series(1, 1100) AS n RETURNING session_id"
        "), queue AS ("
        " INSERT INTO taskforge.queues (project_id, id, name)"
        " VALUES ($1, gen_random_uuid(), 'q') RETURNING id"
        ") INSERT INTO taskforge.jobs (project_id, id, queue_id, status, priority, created_at,"
        " updated_at, session_id, lease_seq, attempt_count, max_attempts, payload_bytes, job_type,"
        " payload)"
        " SELECT $1, gen_random_uuid(), queue.id, 3, 0, now(), now(), made.session_id,"
        " nextval('taskforge.lease_seq'), 1, 3, 2, 'send', '{}'"
        " FROM made, queue, generate_series(1, 100)",
        own.project_id,
        "\U0001f4a5" * 250,
    )
    assert await list_all(contract, "ListWorkers", own, "workers") == 1100


async def test_a_page_of_jobs_fits_into_a_message(
    contract: Contract, database: Database, own: Tenant
) -> None:
    await database.hot.execute(
        "WITH queue AS ("
        " INSERT INTO taskforge.queues (project_id, id, name)"
        " VALUES ($1, gen_random_uuid(), 'q') RETURNING id"
        "), counted AS ("
        " INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)"
        " SELECT $1, id, 4, 1100 FROM queue"
        ") INSERT INTO taskforge.job_history (project_id, id, queue_id, status, priority,"
        " created_at, updated_at, started_at, completed_at, attempt_count, max_attempts,"
        " payload_bytes, job_type, payload, attempts, worker_id, traceparent, tracestate,"
        " origin_job_id, origin_queue_id, origin_failed_at)"
        " SELECT $1, gen_random_uuid(), queue.id, 4, 0, now(), now(), now(), now(), 1, 3,"
        " octet_length($2), rpad('s', 100, 's'), $2::json, '[]', $3, rpad('t', 64, 't'),"
        " rpad('t', 512, 't'), gen_random_uuid(), gen_random_uuid(), now()"
        " FROM queue, generate_series(1, 1100)",
        own.project_id,
        '"' + "x" * 2090 + '"',
        "\U0001f4a5" * 255,
    )
    assert await list_all(contract, "ListJobs", own, "jobs") == 1100
