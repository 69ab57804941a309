-- Locks leased jobs whose attempts have run out of time, the longest overdue first.
--
-- Guarantee: what comes back cannot change until this transaction ends. A job that is being settled,
-- or ended by another scheduler, is skipped instead of waited for; if it is still held afterwards,
-- the next pass finds it.
-- Index: jobs_timeout, read in its order (the time is a subquery because a volatile function cannot
-- bound an index).
--
-- $1 leases at most
SELECT project_id, id::text AS id, lease_seq
FROM taskforge.jobs
WHERE status = 3 AND timeout_at IS NOT NULL AND timeout_at <= (SELECT clock_timestamp())
ORDER BY timeout_at
LIMIT $1
FOR UPDATE SKIP LOCKED
