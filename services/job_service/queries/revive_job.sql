-- Brings a failed job back from history, ready at once.
--
-- Guarantee: the row leaves history in the statement that puts it among the waiting ones, so it is
-- always in exactly one of the two; the counts change with it. The settle that failed it stays
-- answered until the next lease. No row: it is not FAILED, its attempts are used up, its queue is
-- deleted, or a dead-letter queue has a job for it.
-- Index: job_history_key, one probe a partition; queues_pkey.
--
-- $1 project_id, $2 job id, $3 attempts to add (integer)
WITH gone AS (
    DELETE FROM taskforge.job_history AS job
    WHERE job.project_id = $1 AND job.id = $2 AND job.status = 5
      AND job.dead_letter_job_id IS NULL
      AND job.attempt_count < job.max_attempts + $3::integer AND job.max_attempts + $3::integer <= 100
      AND (
        -- No EXISTS: as a join it may come first, and then there is a probe for each queue.
        SELECT queue.deleted_at IS NULL
        FROM taskforge.queues AS queue
        WHERE queue.project_id = $1 AND queue.id = job.queue_id
      )
    RETURNING job.*
), made AS (
    INSERT INTO taskforge.jobs (
        project_id, id, queue_id, created_at, updated_at, scheduled_for, started_at, attempt_count,
        max_attempts, payload_bytes, status, priority, timeout, job_type, worker_id, payload,
        progress, attempts, labels, traceparent, tracestate, origin_job_id, origin_queue_id,
        origin_failed_at, last_seq, last_status
    )
    SELECT
        project_id, id, queue_id, created_at, clock_timestamp(), scheduled_for, started_at,
        attempt_count, max_attempts + $3::integer, payload_bytes, 1, priority, timeout, job_type, worker_id,
        payload, progress, attempts, labels, traceparent, tracestate, origin_job_id,
        origin_queue_id, origin_failed_at, last_seq, last_status
    FROM gone
    RETURNING queue_id
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, change.status, change.n
    FROM made, (VALUES (5, -1), (1, 1)) AS change (status, n)
)
SELECT queue_id FROM made
