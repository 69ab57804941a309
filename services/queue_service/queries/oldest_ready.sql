-- How long the oldest ready job of a queue has waited since its creation, by the database's clock;
-- NULL when none is ready. Ten probes of jobs_ready, one a priority, whatever waits.
--
-- The priority is given as a range and ordered by, although it is a single value: so only
-- jobs_ready has the order, and no statistics make the planner walk jobs_listing instead.
SELECT greatest(clock_timestamp(), min(oldest.created_at)) - min(oldest.created_at) AS age
FROM generate_series(0, 9) AS level (priority)
CROSS JOIN LATERAL (
    SELECT job.created_at
    FROM taskforge.jobs AS job
    WHERE job.project_id = CAST(:project_id AS uuid)
      AND job.queue_id = CAST(:queue_id AS uuid)
      AND job.status = 1
      AND job.priority >= level.priority
      AND job.priority <= level.priority
    ORDER BY job.priority DESC, job.created_at, job.id
    LIMIT 1
) AS oldest
