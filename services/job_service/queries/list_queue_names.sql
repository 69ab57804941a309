-- Lists a project's queues, for routing only: every claim and insert reads the rules that it uses.
--
-- Index: queues_name, the project's range.
--
-- $1 project_id
SELECT
    id,
    name,
    max_concurrent_jobs IS NOT NULL OR rate_limit_per_minute IS NOT NULL AS has_limits
FROM taskforge.queues WHERE project_id = $1 AND deleted_at IS NULL
