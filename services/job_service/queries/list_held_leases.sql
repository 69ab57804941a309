-- Lists what sessions hold.
--
-- Guarantee: run as a statement of its own after the sessions' rows were locked, it sees every claim
-- that was committed before, and no claim for them can commit until the lock is gone.
-- Index: jobs_held, one range a session.
--
-- $1 project_id, $2 session ids
SELECT
    session_id,
    id::text AS id,
    lease_seq,
    payload_bytes,
    cancel_requested_at IS NOT NULL AS cancel_requested,
    clock_timestamp() - started_at AS age
FROM taskforge.jobs
WHERE project_id = $1 AND session_id = ANY($2::uuid[]) AND status = 3
