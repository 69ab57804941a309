-- Deletes finished jobs: each named one that ended at the named time.
--
-- Guarantee: the rows and the counts change together. A job that is being tried again is waited for,
-- and left alone when it has gone back, also when it ended anew since: it has another end then, as its
-- status and queue could only be others then. Rows are locked in the order of the arrays.
-- Index: job_history_key, one probe a job, of the partition of its day.
--
-- $1 project_id, $2 job ids, $3 when they ended (aligned)
WITH named AS MATERIALIZED (
    SELECT $1::uuid AS project_id, given.*
    FROM unnest($2::uuid[], $3::timestamptz[]) AS given (id, completed_at)
), gone AS (
    DELETE FROM taskforge.job_history AS job
    USING named
    WHERE job.project_id = named.project_id
      AND job.id = named.id
      AND job.completed_at = named.completed_at
    RETURNING job.queue_id, job.status
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, status, -count(*) FROM gone GROUP BY queue_id, status
)
SELECT count(*) AS n FROM gone
