-- Finds waiting jobs that slipped into queues while these were deleted: their insert, return or
-- retry had read the queue before.
--
-- Index: jobs_listing, one range a deleted queue.
--
-- $1 jobs at most
SELECT queue.project_id, job.id::text AS id
FROM taskforge.queues AS queue
CROSS JOIN LATERAL (
    SELECT id
    FROM taskforge.jobs
    WHERE project_id = queue.project_id AND queue_id = queue.id AND lease_seq IS NULL
    LIMIT $1
) AS job
WHERE queue.deleted_at IS NOT NULL
LIMIT $1
