-- Lists what sessions hold.
--
-- Guarantee: run as a statement of its own after the sessions' rows were locked, it sees every claim
-- that was committed before, and no claim for them can commit until the lock is gone.
-- Index: jobs_held, one range a session (OFFSET 0 keeps the planner from reading the project's jobs
-- as well, which it may believe to be few).
--
-- $1 project_id, $2 session ids
SELECT
    session_id,
    id::text AS id,
    lease_seq,
    payload_bytes,
    cancel_requested_at IS NOT NULL AS cancel_requested,
    clock_timestamp() - started_at AS age
FROM (
    SELECT * FROM taskforge.jobs WHERE session_id = ANY($2::uuid[]) AND status = 3 OFFSET 0
) AS held
WHERE project_id = $1
