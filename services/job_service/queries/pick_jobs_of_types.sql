-- Picks candidates of certain types for a claim, best first, without locking them.
--
-- Guarantee: as `pick_jobs`, for each pair of an open queue and a type, so that a subscription to a
-- rare type never walks the backlog of the others.
-- Index: jobs_ready_by_type, one range a pair, read in its order; queues_pkey or queues_name.
--
-- $1 project_id, $2 queue ids (NULL: every queue of the project), $3 per pair, $4 rows at most,
-- $5 jobs to leave out, as they were tried before, $6 the largest payload (bytes) that is wanted,
-- $7 job types
SELECT
    job.id,
    queue.id AS queue_id,
    type.name AS job_type,
    job.payload_bytes
FROM taskforge.queues AS queue
CROSS JOIN unnest($7::text[]) AS type (name)
CROSS JOIN LATERAL (
    SELECT id, priority, created_at, payload_bytes
    FROM taskforge.jobs
    WHERE project_id = $1
      AND queue_id = queue.id
      AND job_type = type.name
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
