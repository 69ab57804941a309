-- Deletes finished jobs of days that are kept no longer from the partition that no day owns.
--
-- Guarantee: the rows and the counts change together. A row that RetryJob is taking is skipped.
-- Index: none; the partition is empty unless the scheduler was away for a week.
--
-- $1 the first day that is kept (UTC), $2 rows at most
WITH gone AS (
    DELETE FROM taskforge.job_history_default
    WHERE ctid = ANY(ARRAY(
        SELECT ctid
        FROM taskforge.job_history_default
        WHERE completed_at < $1::date::timestamp AT TIME ZONE 'UTC'
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING project_id, queue_id, status
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT project_id, queue_id, status, -count(*) FROM gone GROUP BY project_id, queue_id, status
)
SELECT count(*) AS n FROM gone
