-- Deletes finished jobs of a queue: each named one that ended at the named time and so.
--
-- Guarantee: the rows and the counts change together. A job that is being tried again is waited for,
-- and left alone when it has gone back, also when it ended anew since. Rows are locked in the order of
-- the arrays.
-- Index: job_history_key, one probe a job, of the partition of its day.
--
-- $1 project_id, $2 queue id, $3 job ids, $4 when they ended (aligned), $5 statuses
WITH gone AS (
    DELETE FROM taskforge.job_history AS job
    USING unnest($3::uuid[], $4::timestamptz[]) AS named (id, completed_at)
    WHERE job.project_id = $1
      AND job.id = named.id
      AND job.completed_at = named.completed_at
      AND job.queue_id = $2
      AND job.status = ANY($5::smallint[])
    RETURNING job.status
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, $2, status, -count(*) FROM gone GROUP BY status
)
SELECT count(*) AS n FROM gone
