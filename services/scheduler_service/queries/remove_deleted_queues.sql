-- Removes the rows of queues that were deleted a while ago and have no unfinished job.
--
-- Guarantee: what could still put a job into the queue began before the deletion, since everything
-- reads the queue's row in the transaction that uses it. `$1` must be far longer than any such
-- transaction lasts: statements are limited to seconds, and so is idling in a transaction.
-- Index: jobs_listing, one probe a queue (a scalar subquery, because NOT EXISTS may be planned as a
-- join that reads all jobs).
--
-- $1 how long ago
DELETE FROM taskforge.queues AS queue
WHERE queue.deleted_at < clock_timestamp() - $1::interval
  AND (
      SELECT true
      FROM taskforge.jobs AS job
      WHERE job.project_id = queue.project_id AND job.queue_id = queue.id
      LIMIT 1
  ) IS NULL
RETURNING queue.id
