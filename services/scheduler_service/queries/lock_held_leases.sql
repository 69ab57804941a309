-- Locks what sessions hold.
--
-- Guarantee: run as a statement of its own after the sessions' rows were locked, it sees every claim
-- that was committed before, and no claim for them can commit until the lock is gone. A job that is
-- being settled is skipped instead of waited for: its settle wins, or leaves it for the next pass.
-- Index: jobs_held, one range a session.
--
-- $1 project ids, $2 session ids (aligned)
SELECT job.project_id, job.id::text AS id, job.lease_seq
FROM unnest($1::uuid[], $2::uuid[]) AS silent (project_id, session_id)
CROSS JOIN LATERAL (
    SELECT project_id, id, lease_seq
    FROM taskforge.jobs
    WHERE project_id = silent.project_id AND session_id = silent.session_id AND status = 3
    FOR UPDATE SKIP LOCKED
) AS job
