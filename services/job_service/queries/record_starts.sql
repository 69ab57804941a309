-- Records how many leases of queues with a rate limit started in this second.
--
-- Guarantee: written under the queue's lock in the transaction of the leases, so a limit counts
-- exactly those that were committed. Buckets that no window of 60 s can reach any more are dropped.
-- Index: queue_starts_pkey.
--
-- $1 project_id, $2 queue ids (ascending), $3 how many leases of each, $4 second since 1970
INSERT INTO taskforge.queue_starts AS kept (project_id, queue_id, seconds, starts)
SELECT $1, started.queue_id, ARRAY[$4::bigint], ARRAY[started.n]
FROM unnest($2::uuid[], $3::integer[]) AS started (queue_id, n)
ON CONFLICT (project_id, queue_id) DO UPDATE
SET (seconds, starts) = (
    SELECT array_agg(merged.second ORDER BY merged.second), array_agg(merged.n ORDER BY merged.second)
    FROM (
        SELECT bucket.second, sum(bucket.n)::integer AS n
        FROM (
            SELECT * FROM unnest(kept.seconds, kept.starts)
            UNION ALL
            SELECT * FROM unnest(excluded.seconds, excluded.starts)
        ) AS bucket (second, n)
        WHERE bucket.second >= excluded.seconds[1] - 60
        GROUP BY bucket.second
    ) AS merged
)
