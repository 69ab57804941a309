-- Leases jobs to sessions: of the picked candidates those that are still ready and that no other
-- claim has locked.
--
-- Guarantee: status and queue are checked again under the row's lock (a redrive may have moved the job
-- to a queue with other rules), and a row locked by another claim is skipped instead of waited for;
-- each lease gets a number that no lease had before.
-- A queue with limits yields nothing unless its lock is held ($6). A claim on a queue without limits
-- shares its lock, so that the first claim under a new limit waits for those still under none.
-- Index: jobs_pkey, two probes a job; queues_pkey, one a queue. OFFSET 0 keeps the planner to that also
-- while it knows nothing of the tables (as in `finish_jobs`), and so does the check of the job's queue
-- behind the lock.
--
-- $1 project_id; aligned arrays: $2 job ids, $3 session ids, $4 worker ids, $5 the queues from which
-- they were picked; $6 queues whose locks this transaction holds
WITH open_queue AS MATERIALIZED (
    SELECT queue.id, queue.timeout
    FROM (SELECT DISTINCT unnest($5::uuid[])) AS given (id)
    CROSS JOIN LATERAL (
        SELECT * FROM taskforge.queues WHERE project_id = $1 AND id = given.id OFFSET 0
    ) AS queue
    WHERE queue.is_active AND queue.deleted_at IS NULL
      AND CASE
        WHEN queue.id = ANY($6::uuid[]) THEN true
        WHEN queue.max_concurrent_jobs IS NULL AND queue.rate_limit_per_minute IS NULL
            THEN pg_try_advisory_xact_lock_shared(hashtextextended(queue.id::text, 0))
        ELSE false
      END
), chosen AS MATERIALIZED (
    SELECT $1::uuid AS project_id, given.id, given.session_id, given.worker_id, open_queue.timeout
    FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::uuid[])
        AS given (id, session_id, worker_id, queue_id)
    JOIN open_queue ON open_queue.id = given.queue_id
    CROSS JOIN LATERAL (
        SELECT candidate.queue_id
        FROM taskforge.jobs AS candidate
        WHERE candidate.project_id = $1 AND candidate.id = given.id AND candidate.status = 1
        FOR UPDATE SKIP LOCKED
    ) AS job
    WHERE job.queue_id = given.queue_id
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), leased AS (
    UPDATE taskforge.jobs AS job
    SET status = 3,
        attempt_count = job.attempt_count + 1,
        lease_seq = nextval('taskforge.lease_seq'),
        last_seq = NULL,
        last_status = NULL,
        session_id = chosen.session_id,
        worker_id = chosen.worker_id,
        started_at = moment.now,
        updated_at = moment.now,
        timeout_at = moment.now + coalesce(job.timeout, chosen.timeout)
    FROM chosen, moment
    WHERE job.project_id = chosen.project_id AND job.id = chosen.id
    RETURNING job.*
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, change.status, change.sign * count(*)
    FROM leased, (VALUES (1, -1), (3, 1)) AS change (status, sign)
    GROUP BY queue_id, change.status, change.sign
)
SELECT
    id::text AS id,
    queue_id::text AS queue_id,
    session_id,
    lease_seq,
    job_type,
    payload::text AS payload,
    payload_bytes,
    priority,
    max_attempts,
    attempt_count,
    (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,
    (extract(epoch FROM started_at) * 1000000)::bigint AS started_at,
    (extract(epoch FROM scheduled_for) * 1000000)::bigint AS scheduled_for,
    (extract(epoch FROM timeout_at) * 1000000)::bigint AS timeout_at,
    timeout,
    worker_id,
    progress::text AS progress,
    labels::text AS labels,
    traceparent,
    tracestate,
    origin_job_id,
    origin_queue_id,
    origin_failed_at
FROM leased
