-- The open queues of a subscription as `queue`, in the order of their priority: $1 project_id, $2 queue ids
-- (NULL: all of the project), $6 queues to leave out. Queues that are given are probed one by one (OFFSET 0
-- keeps the planner to that); only a subscription to all of them reads all of them.
FROM (
    SELECT id, priority, max_concurrent_jobs, rate_limit_per_minute
    FROM (
        SELECT own.*
        FROM (SELECT DISTINCT unnest($2::uuid[])) AS given (id)
        CROSS JOIN LATERAL (
            SELECT * FROM taskforge.queues WHERE project_id = $1 AND id = given.id OFFSET 0
        ) AS own
        UNION ALL
        SELECT * FROM taskforge.queues WHERE project_id = $1 AND $2::uuid[] IS NULL
    ) AS present
    WHERE id <> ALL($6::uuid[]) AND is_active AND deleted_at IS NULL
    ORDER BY priority DESC
    OFFSET 0
) AS queue
