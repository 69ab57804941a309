-- Makes scheduled jobs whose time has come ready, the longest due first.
--
-- Guarantee: the rows and the counts change together. A row that another transaction has locked is
-- skipped instead of waited for, so two schedulers share the work, and each job is promoted once.
-- The rows are locked before their addresses (ctid) are used, so these cannot move.
-- Index: jobs_due, read in its order (the time is a subquery because a volatile function cannot
-- bound an index); then one fetch a row by its address.
--
-- $1 jobs at most
WITH promoted AS (
    UPDATE taskforge.jobs
    SET status = 1, updated_at = clock_timestamp()
    WHERE ctid = ANY(ARRAY(
        SELECT ctid
        FROM taskforge.jobs
        WHERE status = 2 AND scheduled_for <= (SELECT clock_timestamp())
        ORDER BY scheduled_for
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING project_id, queue_id
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT project_id, queue_id, change.status, change.sign * count(*)
    FROM promoted, (VALUES (2, -1), (1, 1)) AS change (status, sign)
    GROUP BY project_id, queue_id, change.status, change.sign
)
SELECT queue_id, count(*) AS n FROM promoted GROUP BY queue_id
