-- Looks at the next unfinished jobs of a queue, the oldest first, behind a place in that order.
--
-- Guarantee: none for the time after it, since nothing is locked: what acts on a job checks it again.
-- Its cost is bounded by $6 whatever waits, so running jobs and those of other statuses are among
-- the rows, for the caller to pass over.
-- Index: jobs_listing, read backwards.
--
-- $1 project_id, $2 queue id, $3 latest creation, $4 and $5 creation and id of the last job that was
-- looked at, $6 jobs at most
SELECT id, created_at, status, payload_bytes, job_type, origin_queue_id
FROM taskforge.jobs
WHERE project_id = $1
  AND queue_id = $2
  AND created_at <= $3
  AND (created_at, id) > ($4::timestamptz, $5::uuid)
ORDER BY created_at, id
LIMIT $6
