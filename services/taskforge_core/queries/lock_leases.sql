-- Locks the jobs whose leases are still the named ones, and reads what deciding their fate needs.
--
-- Guarantee: a row comes back only if its lease_seq is the given one, and then nobody can change it
-- until this transaction ends. Rows are locked in the order of the arrays: give them ascending by id.
-- Index: jobs_pkey, one probe a lease.
--
-- $1 project_id, $2 job ids, $3 lease sequences (aligned with $2)
SELECT
    job.id::text AS id,
    job.queue_id,
    job.session_id,
    job.lease_seq,
    coalesce(job.worker_id, '') AS worker_id,
    job.attempt_count,
    job.max_attempts,
    job.undelivered_count,
    job.cancel_requested_at IS NOT NULL AS cancel_requested,
    job.started_at,
    clock_timestamp() AS now,
    queue.retry_delay,
    queue.max_retry_delay,
    queue.backoff_multiplier,
    queue.retry_jitter
FROM unnest($2::uuid[], $3::bigint[]) AS held (id, lease_seq)
CROSS JOIN LATERAL (
    SELECT *
    FROM taskforge.jobs AS candidate
    WHERE candidate.project_id = $1
      AND candidate.id = held.id
      AND candidate.lease_seq = held.lease_seq
    FOR UPDATE
) AS job
LEFT JOIN taskforge.queues AS queue
    ON queue.project_id = $1 AND queue.id = job.queue_id
