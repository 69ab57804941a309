-- Opens paused queues whose time has come.
--
-- Guarantee: a queue that somebody changes at this moment is skipped instead of waited for, and so is
-- one that was opened, deleted or paused anew just before: its time is checked under its lock.
-- Index: queues_resume (the time is a subquery because a volatile function cannot bound an index);
-- then one fetch a row by its address.
--
-- $1 queues at most
UPDATE taskforge.queues
SET is_active = true, accepts_jobs = true, resume_at = NULL, updated_at = clock_timestamp()
WHERE ctid = ANY(ARRAY(
    SELECT ctid
    FROM taskforge.queues
    WHERE resume_at <= (SELECT clock_timestamp()) AND deleted_at IS NULL
    ORDER BY resume_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
))
RETURNING project_id, id
