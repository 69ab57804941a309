-- Subtracts the jobs of one day of history from the counts. The table must be locked
-- (`lock_partition`) by an earlier statement of the transaction that empties it.
--
-- Guarantee: it sees every change that was committed before the lock, and none can follow.
WITH counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT project_id, queue_id, status, -count(*)
    FROM taskforge.{partition}
    GROUP BY project_id, queue_id, status
    RETURNING n
)
SELECT coalesce(-sum(n), 0)::bigint AS n FROM counted
