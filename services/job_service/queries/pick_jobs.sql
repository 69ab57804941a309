-- Picks candidates for a claim, best first, without locking them.
--
-- Guarantee: of each open queue the best `per_queue` jobs that are ready, merged by queue priority,
-- job priority, age and id. A queue that returns `per_queue` rows may have more: what ranks behind
-- its last row is not certain to be next (`dealing.certain` cuts there).
-- Index: jobs_ready, one range a queue, read in its order; queues_pkey or queues_name.
-- Queues are read in the order of their priority, and no further than until the rows suffice.
-- What another transaction holds is left out.
--
-- $1 project_id, $2 queue ids (NULL: all of the project), $3 per_queue, $4 rows at most,
-- $5 jobs to leave out, as they were tried before, $6 queues to leave out, as they have no room,
-- $7 the largest payload, labels and progress together that anybody can receive
SELECT
    job.id,
    queue.id AS queue_id,
    job.payload_bytes,
    job.message_bytes,
    queue.max_concurrent_jobs IS NOT NULL OR queue.rate_limit_per_minute IS NOT NULL AS has_limits
-- part: open_queues
CROSS JOIN LATERAL (
    SELECT id, priority, created_at, payload_bytes, size.message_bytes
    FROM taskforge.jobs
    CROSS JOIN LATERAL (
        SELECT payload_bytes
            + coalesce(octet_length(labels::text), 0)
            + coalesce(octet_length(progress::text), 0) AS message_bytes
    ) AS size
    WHERE project_id = $1 AND queue_id = queue.id AND status = 1 AND id NOT IN (SELECT unnest($5::uuid[]))
-- part: unlocked
      AND size.message_bytes <= $7
    ORDER BY priority DESC, created_at, id
    LIMIT $3
) AS job
ORDER BY queue.priority DESC, job.priority DESC, job.created_at, job.id
LIMIT $4
