-- Forgets request ids that are older than they are kept, the oldest first.
--
-- Guarantee: an id that a creation is reading or writing is skipped instead of waited for.
-- Index: request_ids_age, read in its order (the time is a subquery because a volatile function
-- cannot bound an index).
--
-- $1 how long they are kept, $2 rows at most
WITH gone AS (
    DELETE FROM taskforge.request_ids
    WHERE ctid = ANY(ARRAY(
        SELECT ctid
        FROM taskforge.request_ids
        WHERE created_at < (SELECT clock_timestamp()) - $1::interval
        ORDER BY created_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) AS n FROM gone
