-- Creates jobs as `insert_jobs` does, and leases those that were dealt to sessions in the same moment, so
-- that they need no claim: where workers keep up, this is one transaction less a job.
--
-- Guarantee: jobs are leased only if a claim would have leased them, all that were dealt or none. Every
-- session may take jobs, and as many as it was dealt by (`standing`). Their queues are open, delay
-- nothing and have no limits; as in `claim_jobs` their locks are shared, so that the first claim under a
-- new limit waits. And no job is ready that could rank before one of them: none at all, for simplicity,
-- in those queues of the subscription that have the least of their queues' priorities or a higher one.
-- And all this is known as of no earlier than 50 ms ago: the statement may have waited for another one
-- with a request_id in common. Otherwise they wait as every new job does. How each session stands comes back.
-- Index: those of `item` and of `standing`; queues_pkey or queues_name; jobs_ready or jobs_ready_by_type,
-- one probe a queue, or a queue and a type. Queues that are given are probed one by one (OFFSET 0).
--
-- $1 to $14: as `item` says; aligned arrays of the sessions: $15 ids, $16 call ids, $17 how many leases
-- each may hold, as it was dealt by; aligned arrays of the jobs that were dealt: $18 ids, $19 session ids,
-- $20 worker ids; the sessions' subscription: $21 queue ids (NULL: all of the project), $22 job types
-- (empty: all)
WITH named AS MATERIALIZED (
    SELECT *
    FROM unnest($15::uuid[], $16::uuid[], $17::integer[])
        AS each (session_id, call_id, max_in_flight)
),
-- part: standing
, seat AS MATERIALIZED (
    SELECT *
    FROM unnest($18::uuid[], $19::uuid[], $20::text[]) AS each (id, session_id, worker_id)
),
-- part: item
, dealt AS MATERIALIZED (
    SELECT
        item.queue_id,
        item.queue_priority,
        CASE WHEN bool_and(item.is_free AND item.status = 1)
            THEN pg_try_advisory_xact_lock_shared(hashtextextended(item.queue_id::text, 0))
            ELSE false
        END AS is_open
    FROM item
    JOIN seat ON seat.id = item.id
    GROUP BY item.queue_id, item.queue_priority
), admission_of_jobs AS MATERIALIZED (
    SELECT CASE
        -- First what may have to wait, for another creation with a request_id.
        WHEN (SELECT count(*) FROM remembered) >= 0
            AND clock_timestamp() < (SELECT now FROM moment) + interval '50 milliseconds'
        THEN (SELECT is_granted FROM admission)
        AND (SELECT bool_and(is_open) FROM dealt)
        AND NOT EXISTS (
            SELECT
            FROM (
                SELECT own.*
                FROM (SELECT DISTINCT unnest($21::uuid[])) AS given (id)
                CROSS JOIN LATERAL (
                    SELECT * FROM taskforge.queues WHERE project_id = $1 AND id = given.id OFFSET 0
                ) AS own
                UNION ALL
                SELECT * FROM taskforge.queues WHERE project_id = $1 AND $21::uuid[] IS NULL
            ) AS queue
            CROSS JOIN LATERAL (
                (
                    SELECT
                    FROM taskforge.jobs
                    WHERE project_id = $1 AND queue_id = queue.id AND status = 1
                      AND cardinality($22::text[]) = 0
                    ORDER BY priority DESC, created_at, id
                    LIMIT 1
                )
                UNION ALL
                (
                    SELECT
                    FROM unnest($22::text[]) AS type (name)
                    CROSS JOIN LATERAL (
                        SELECT
                        FROM taskforge.jobs
                        WHERE project_id = $1 AND queue_id = queue.id AND job_type = type.name
                          AND status = 1
                        ORDER BY priority DESC, created_at, id
                        LIMIT 1
                    ) AS of_type
                )
            ) AS ready
            WHERE queue.is_active AND queue.deleted_at IS NULL
              AND queue.priority >= (SELECT min(queue_priority) FROM dealt)
        )
        ELSE false
    END AS is_granted
), made AS (
    INSERT INTO taskforge.jobs (
        project_id, id, queue_id, created_at, updated_at, scheduled_for, max_attempts,
        payload_bytes, status, priority, timeout, job_type, payload, labels, traceparent, tracestate,
        attempt_count, lease_seq, session_id, worker_id, started_at, timeout_at
    )
    SELECT
        $1, item.id, item.queue_id, item.now, item.now, item.until, item.attempts_allowed,
        item.payload_bytes, coalesce(lease.status, item.status), item.priority, item.timeout,
        item.job_type, item.payload::json, item.labels::jsonb, item.traceparent, item.tracestate,
        CASE WHEN lease.status = 3 THEN 1 ELSE 0 END,
        CASE WHEN lease.status = 3 THEN nextval('taskforge.lease_seq') END,
        lease.session_id,
        lease.worker_id,
        CASE WHEN lease.status = 3 THEN item.now END,
        CASE WHEN lease.status = 3 THEN item.now + coalesce(item.timeout, item.queue_timeout) END
    FROM item
    LEFT JOIN (
        SELECT id, session_id, worker_id, 3::smallint AS status
        FROM seat
        WHERE (SELECT is_granted FROM admission_of_jobs)
    ) AS lease ON lease.id = item.id
    WHERE item.request_id IS NULL OR item.id IN (SELECT id FROM remembered)
    RETURNING id, queue_id, status, max_attempts, created_at, scheduled_for, lease_seq, timeout_at
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, status, count(*) FROM made GROUP BY queue_id, status
)
SELECT
    NULL AS session,
    id,
    status,
    max_attempts,
    (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,
    (extract(epoch FROM scheduled_for) * 1000000)::bigint AS scheduled_for,
    lease_seq,
    (extract(epoch FROM timeout_at) * 1000000)::bigint AS timeout_at
FROM made
UNION ALL
SELECT session, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM told
