-- Looks at the next finished jobs of a queue, the oldest first by their creation, behind a place in
-- that order.
--
-- Guarantee: none for the time after it, since nothing is locked: what acts on a job checks it again.
-- Its cost is bounded by $5 whatever history holds, so jobs of all statuses, and of any end, are
-- among the rows, for the caller to pass over.
-- Index: job_history_listing of each partition, read backwards and merged.
--
-- $1 project_id, $2 queue id, $3 and $4 creation and id of the last job that was looked at,
-- $5 jobs at most
SELECT id, created_at, completed_at, status
FROM taskforge.job_history
WHERE project_id = $1
  AND queue_id = $2
  AND (created_at, id) > ($3::timestamptz, $4::uuid)
ORDER BY created_at, id
LIMIT $5
