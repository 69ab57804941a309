-- Ends leased jobs: moves each one whose lease is still the named one from jobs to job_history.
--
-- Guarantee: the fence is checked in the statement that removes the row, so a stale lease changes
-- nothing; the row, its history and the counts change together. What comes back was ended here.
-- Index: jobs_pkey, one probe a job. Two things keep the planner from others: no `status = 3` in the
-- condition, for which it may walk a whole partial index (lease_seq is non-null exactly then); and
-- a project_id that is a column of the list (OFFSET 0 keeps it one), since for a constant it may
-- read all jobs of the project, which it believes to be few until the table is analyzed.
--
-- $1 project_id; aligned arrays, of which a shorter one ends in NULLs: $2 job ids (ascending), $3 lease
-- sequences, $4 final statuses, $5 results (JSON), $6 failed attempts to add (JSON); $7 whether a settle
-- is answered by it (remembered for repeats)
WITH gone AS (
    DELETE FROM taskforge.jobs AS job
    USING (
        SELECT $1::uuid AS project_id, given.*
        FROM unnest($2::uuid[], $3::bigint[], $4::smallint[], $5::text[], $6::text[])
            WITH ORDINALITY AS given (id, lease_seq, status, result, failure, place)
        OFFSET 0
    ) AS ended
    WHERE job.project_id = ended.project_id
      AND job.id = ended.id
      AND job.lease_seq = ended.lease_seq
    RETURNING job.*, ended.place, ended.status AS final_status, ended.result, ended.failure
), filed AS (
    INSERT INTO taskforge.job_history (
        project_id, id, queue_id, created_at, updated_at, completed_at, scheduled_for, started_at,
        cancel_requested_at, last_seq, last_status, attempt_count, max_attempts, payload_bytes,
        status, priority, timeout, job_type, worker_id, payload, progress, result, attempts, labels,
        traceparent, tracestate, origin_job_id, origin_queue_id, origin_failed_at
    )
    SELECT
        project_id, id, queue_id, created_at, moment.now, moment.now, scheduled_for, started_at,
        cancel_requested_at,
        CASE WHEN $7 THEN lease_seq END,
        CASE WHEN $7 THEN final_status END,
        attempt_count, max_attempts, payload_bytes, final_status, priority, timeout, job_type,
        worker_id, payload, progress, result::json,
        CASE WHEN failure IS NULL THEN attempts ELSE attempts || failure::jsonb END,
        labels, traceparent, tracestate, origin_job_id, origin_queue_id, origin_failed_at
    FROM gone, (SELECT clock_timestamp() AS now) AS moment
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, 3, -count(*) FROM gone GROUP BY queue_id
    UNION ALL
    SELECT $1, queue_id, final_status, count(*) FROM gone GROUP BY queue_id, final_status
)
-- Jobs of one queue and session share a row: most batches have one.
SELECT queue_id, session_id, final_status AS status, array_agg(place) AS places
FROM gone
GROUP BY queue_id, session_id, final_status
