-- Picks candidates of certain types for a claim, best first, without locking them.
--
-- Guarantee: as `pick_jobs`, for each pair of an open queue and a type, so that a subscription to a
-- rare type never walks the backlog of the others.
-- Index: jobs_ready_by_type, one range a pair, read in its order; queues_pkey or queues_name.
-- Queues are read in the order of their priority, and no further than until the rows suffice.
-- What another transaction holds is left out.
--
-- $1 project_id, $2 queue ids (NULL: all of the project), $3 per pair, $4 rows at most,
-- $5 jobs to leave out, as they were tried before, $6 queues to leave out, as they have no room,
-- $7 the largest payload, labels and progress together that anybody can receive, $8 job types
SELECT
    job.id,
    queue.id AS queue_id,
    type.name AS job_type,
    job.payload_bytes,
    job.message_bytes,
    queue.max_concurrent_jobs IS NOT NULL OR queue.rate_limit_per_minute IS NOT NULL AS has_limits
-- part: open_queues
CROSS JOIN unnest($8::text[]) AS type (name)
CROSS JOIN LATERAL (
    SELECT id, priority, created_at, payload_bytes, size.message_bytes
    FROM taskforge.jobs
    CROSS JOIN LATERAL (
        SELECT payload_bytes
            + coalesce(octet_length(labels::text), 0)
            + coalesce(octet_length(progress::text), 0) AS message_bytes
    ) AS size
    WHERE project_id = $1
      AND queue_id = queue.id
      AND job_type = type.name
      AND status = 1
      AND id NOT IN (SELECT unnest($5::uuid[]))
-- part: unlocked
      AND size.message_bytes <= $7
    ORDER BY priority DESC, created_at, id
    LIMIT $3
) AS job
ORDER BY queue.priority DESC, job.priority DESC, job.created_at, job.id
LIMIT $4
