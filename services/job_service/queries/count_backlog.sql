-- Counts the unfinished jobs of a project.
--
-- Guarantee: exact as of this statement's snapshot, whether the deltas are folded or not.
-- Index: queue_counts_pkey, queue_deltas_key.
--
-- $1 project_id
SELECT coalesce(sum(part.n), 0)::bigint AS jobs
FROM (
    SELECT n FROM taskforge.queue_counts WHERE project_id = $1 AND status <= 3
    UNION ALL
    SELECT n FROM taskforge.queue_deltas WHERE project_id = $1 AND status <= 3
) AS part
