-- Removes counts of removed queues that have come to zero: their history is gone.
--
-- Guarantee: no sum changes, since a missing count is zero. That it is zero is checked under the
-- row's lock; a row that is being folded into is skipped.
-- Index: queues_pkey, one probe a count of zero.
--
-- $1 rows at most
WITH gone AS (
    DELETE FROM taskforge.queue_counts
    WHERE ctid = ANY(ARRAY(
        SELECT counts.ctid
        FROM taskforge.queue_counts AS counts
        WHERE counts.n = 0
          AND NOT EXISTS (
              SELECT FROM taskforge.queues AS queue
              WHERE queue.project_id = counts.project_id AND queue.id = counts.queue_id
          )
        LIMIT $1
        FOR UPDATE OF counts SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) AS n FROM gone
