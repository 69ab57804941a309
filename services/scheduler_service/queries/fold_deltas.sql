-- Adds deltas to the counts that they change.
--
-- Guarantee: the deltas go and the counts change in one statement, so a reader that adds the two in
-- one statement sees the same sum before and after. Two schedulers take different deltas (SKIP
-- LOCKED) and write the counts in the order of their keys, so they cannot deadlock.
-- Index: none for the deltas, whose table is short while somebody folds; queue_counts_pkey.
--
-- $1 deltas at most
WITH taken AS (
    DELETE FROM taskforge.queue_deltas
    WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM taskforge.queue_deltas LIMIT $1 FOR UPDATE SKIP LOCKED
    ))
    RETURNING project_id, queue_id, status, n
), folded AS (
    INSERT INTO taskforge.queue_counts AS counts (project_id, queue_id, status, n)
    SELECT project_id, queue_id, status, sum(n)
    FROM taken
    GROUP BY project_id, queue_id, status
    HAVING sum(n) <> 0
    ORDER BY project_id, queue_id, status
    ON CONFLICT (project_id, queue_id, status) DO UPDATE SET n = counts.n + excluded.n
)
SELECT count(*) AS n FROM taken
