-- Gives leased jobs back: each one whose lease is still the named one waits again.
--
-- Guarantee: the fence is checked in the statement that changes the row, so a stale lease changes
-- nothing; the row and the counts change together. Without a delay a job is ready at once.
-- Index: jobs_pkey, one probe a job (`finish_jobs` tells what keeps the planner from others).
--
-- $1 project_id, $2 job ids (ascending), $3 lease sequences, $4 delays (zero: ready at once),
-- $5 whether the attempt counts as used, $6 whether its lease reached no worker,
-- $7 failed attempts to add (JSON), $8 whether a settle is answered by it (remembered for repeats)
WITH back AS (
    UPDATE taskforge.jobs AS job
    SET status = ended.status,
        scheduled_for = CASE WHEN ended.status = 2 THEN clock_timestamp() + ended.delay
                             ELSE job.scheduled_for END,
        attempt_count = job.attempt_count - CASE WHEN ended.uses_attempt THEN 0 ELSE 1 END,
        undelivered_count = job.undelivered_count + CASE WHEN ended.undelivered THEN 1 ELSE 0 END,
        attempts = CASE WHEN ended.failure IS NULL THEN job.attempts
                        ELSE job.attempts || ended.failure::jsonb END,
        last_seq = CASE WHEN $8 THEN job.lease_seq END,
        last_status = CASE WHEN $8 THEN ended.status END,
        lease_seq = NULL,
        session_id = NULL,
        timeout_at = NULL,
        cancel_requested_at = NULL,
        updated_at = clock_timestamp()
    FROM (
        SELECT $1::uuid AS project_id, given.*,
               (CASE WHEN given.delay > interval '0' THEN 2 ELSE 1 END)::smallint AS status
        FROM unnest($2::uuid[], $3::bigint[], $4::interval[], $5::boolean[], $6::boolean[], $7::text[])
            AS given (id, lease_seq, delay, uses_attempt, undelivered, failure)
        OFFSET 0
    ) AS ended
    WHERE job.project_id = ended.project_id
      AND job.id = ended.id
      AND job.lease_seq = ended.lease_seq
    RETURNING job.id, ended.lease_seq, job.queue_id, job.status
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, 3, -count(*) FROM back GROUP BY queue_id
    UNION ALL
    SELECT $1, queue_id, status, count(*) FROM back GROUP BY queue_id, status
)
SELECT id::text AS id, lease_seq, queue_id, status FROM back
