-- Cancels waiting jobs: moves each named one that is not leased from jobs to job_history.
--
-- Guarantee: that no lease exists is checked in the statement that removes the row, so a running job
-- is never touched; the row, its history and the counts change together. What comes back was
-- cancelled here. A settle that was answered before stays answered (last_seq, last_status).
-- Index: jobs_pkey, one probe a job (`finish_jobs` tells what keeps the planner from others; lease_seq
-- is null exactly while a job waits).
--
-- $1 project_id, $2 job ids (ascending)
WITH gone AS (
    DELETE FROM taskforge.jobs AS job
    USING (
        SELECT $1::uuid AS project_id, given.id FROM unnest($2::uuid[]) AS given (id) OFFSET 0
    ) AS named
    WHERE job.project_id = named.project_id AND job.id = named.id AND job.lease_seq IS NULL
    RETURNING job.*
), filed AS (
    INSERT INTO taskforge.job_history (
        project_id, id, queue_id, created_at, updated_at, completed_at, scheduled_for, started_at,
        cancel_requested_at, last_seq, last_status, attempt_count, max_attempts, payload_bytes,
        status, priority, timeout, job_type, worker_id, payload, progress, attempts, labels,
        traceparent, tracestate, origin_job_id, origin_queue_id, origin_failed_at
    )
    SELECT
        project_id, id, queue_id, created_at, moment.now, moment.now, scheduled_for, started_at,
        cancel_requested_at, last_seq, last_status, attempt_count, max_attempts, payload_bytes,
        6, priority, timeout, job_type, worker_id, payload, progress, attempts, labels,
        traceparent, tracestate, origin_job_id, origin_queue_id, origin_failed_at
    FROM gone, (SELECT clock_timestamp() AS now) AS moment
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, status, -count(*) FROM gone GROUP BY queue_id, status
    UNION ALL
    SELECT $1, queue_id, 6, count(*) FROM gone GROUP BY queue_id
)
SELECT id::text AS id, queue_id FROM gone
