-- Picks candidates for a claim, best first, without locking them.
--
-- Guarantee: of each open queue the best `per_queue` jobs that are ready, merged by queue priority,
-- job priority, age and id. A queue that returns `per_queue` rows may have more: what ranks behind
-- its last row is not certain to be next (`dealing.certain` cuts there).
-- Index: jobs_ready, one range a queue, read in its order; queues_pkey or queues_name.
--
-- $1 project_id, $2 queue ids (NULL: every queue of the project), $3 per_queue, $4 rows at most,
-- $5 jobs to leave out, as they were tried before, $6 the largest payload (bytes) that is wanted
SELECT
    job.id,
    queue.id AS queue_id,
    job.payload_bytes
FROM taskforge.queues AS queue
CROSS JOIN LATERAL (
    SELECT id, priority, created_at, payload_bytes
    FROM taskforge.jobs
    WHERE project_id = $1
      AND queue_id = queue.id
      AND status = 1
      AND payload_bytes <= $6
      AND id <> ALL($5::uuid[])
    ORDER BY priority DESC, created_at, id
    LIMIT $3
) AS job
WHERE queue.project_id = $1
  AND ($2::uuid[] IS NULL OR queue.id = ANY($2::uuid[]))
  AND queue.is_active
  AND queue.deleted_at IS NULL
ORDER BY queue.priority DESC, job.priority DESC, job.created_at, job.id
LIMIT $4
