-- Leases jobs to sessions: of the picked candidates those that are still ready and that no other
-- claim has locked.
--
-- Guarantee: status and queue are checked again under the row's lock (a redrive may have moved the job
-- to a queue with other rules), and a row locked by another claim is skipped instead of waited for;
-- each lease gets a number that no lease had before.
-- A queue with limits yields nothing unless its lock is held ($6). A claim on a queue without limits
-- shares its lock, so that the first claim under a new limit waits for those still under none.
-- Index: jobs_pkey, two probes a job; queues_pkey, one a queue. What keeps the planner to that also
-- while it knows nothing of the tables is the same as in `finish_jobs`: no condition on the status
-- before the lock, and a project_id that is a column of the list. All are locked by one join: a lateral
-- subquery that locks each by itself takes five times as long.
--
-- $1 project_id; aligned arrays: $2 job ids, $3 the seat of each (empty: there is one seat only);
-- aligned arrays of seats, which are numbered from 1: $4 session ids, $5 worker ids, $6 the queues from
-- which their jobs were picked; $7 queues whose locks this transaction holds
WITH open_queue AS MATERIALIZED (
    SELECT queue.id, queue.timeout
    FROM (SELECT DISTINCT unnest($6::uuid[])) AS given (id)
    CROSS JOIN LATERAL (
        SELECT * FROM taskforge.queues WHERE project_id = $1 AND id = given.id OFFSET 0
    ) AS queue
    WHERE queue.is_active AND queue.deleted_at IS NULL
      AND CASE
        WHEN queue.id = ANY($7::uuid[]) THEN true
        WHEN queue.max_concurrent_jobs IS NULL AND queue.rate_limit_per_minute IS NULL
            THEN pg_try_advisory_xact_lock_shared(hashtextextended(queue.id::text, 0))
        ELSE false
      END
), hand AS MATERIALIZED (
    SELECT $1::uuid AS project_id, given.id, seat.session_id, seat.worker_id,
        open_queue.id AS queue_id, open_queue.timeout
    FROM unnest($2::uuid[], $3::smallint[]) AS given (id, seat)
    JOIN unnest($4::uuid[], $5::text[], $6::uuid[]) WITH ORDINALITY
        AS seat (session_id, worker_id, queue_id, number)
        ON seat.number = coalesce(given.seat, 1)
    JOIN open_queue ON open_queue.id = seat.queue_id
), locked AS MATERIALIZED (
    SELECT hand.*, candidate.status, candidate.queue_id AS present_queue_id
    FROM hand
    JOIN taskforge.jobs AS candidate
        ON candidate.project_id = hand.project_id AND candidate.id = hand.id
    FOR UPDATE OF candidate SKIP LOCKED
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), leased AS (
    UPDATE taskforge.jobs AS job
    SET status = 3,
        attempt_count = job.attempt_count + 1,
        lease_seq = nextval('taskforge.lease_seq'),
        last_seq = NULL,
        last_status = NULL,
        session_id = locked.session_id,
        worker_id = locked.worker_id,
        started_at = moment.now,
        updated_at = moment.now,
        timeout_at = moment.now + coalesce(job.timeout, locked.timeout)
    FROM locked, moment
    WHERE locked.status = 1
      AND locked.present_queue_id = locked.queue_id
      AND job.project_id = locked.project_id
      AND job.id = locked.id
    RETURNING job.*
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, total.queue_id, change.status, change.sign * total.n
    FROM (SELECT queue_id, count(*) AS n FROM leased GROUP BY queue_id) AS total,
        (VALUES (1, -1), (3, 1)) AS change (status, sign)
)
SELECT
    id,
    lease_seq,
    job_type,
    payload::text AS payload,
    priority,
    max_attempts,
    attempt_count,
    (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,
    (extract(epoch FROM started_at) * 1000000)::bigint AS started_at,
    (extract(epoch FROM scheduled_for) * 1000000)::bigint AS scheduled_for,
    (extract(epoch FROM timeout_at) * 1000000)::bigint AS timeout_at,
    timeout,
    progress::text AS progress,
    labels::text AS labels,
    traceparent,
    tracestate,
    origin_job_id,
    origin_queue_id,
    origin_failed_at
FROM leased
