-- Reads how many more jobs of queues with limits may be leased now. Their locks must be held
-- (`lock_limited_queues`), and this must be a statement of its own.
--
-- Guarantee: what runs is counted from the jobs' own transactions, so no counter can drift; the starts
-- of the current second and the 60 before it cover every window of 60 s that ends now.
-- Index: queues_pkey, queue_counts_pkey, queue_deltas_key, queue_starts_pkey.
--
-- $1 project_id, $2 queue ids
SELECT
    queue.id,
    queue.rate_limit_per_minute IS NOT NULL AS is_rated,
    greatest(0, least(
        queue.max_concurrent_jobs - running.n,
        queue.rate_limit_per_minute - started.n
    ))::integer AS room
FROM taskforge.queues AS queue
CROSS JOIN LATERAL (
    SELECT coalesce(sum(part.n), 0) AS n
    FROM (
        SELECT n FROM taskforge.queue_counts
        WHERE project_id = $1 AND queue_id = queue.id AND status = 3
        UNION ALL
        SELECT n FROM taskforge.queue_deltas
        WHERE project_id = $1 AND queue_id = queue.id AND status = 3
    ) AS part
) AS running
CROSS JOIN LATERAL (
    SELECT coalesce(sum(bucket.starts), 0) AS n
    FROM taskforge.queue_starts AS kept
    CROSS JOIN LATERAL unnest(kept.seconds, kept.starts) AS bucket (second, starts)
    WHERE kept.project_id = $1 AND kept.queue_id = queue.id
      AND bucket.second >= floor(extract(epoch FROM clock_timestamp()))::bigint - 60
) AS started
WHERE queue.project_id = $1 AND queue.id = ANY($2::uuid[])
  AND (queue.max_concurrent_jobs IS NOT NULL OR queue.rate_limit_per_minute IS NOT NULL)
