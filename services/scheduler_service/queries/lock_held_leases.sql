-- Locks what sessions hold.
--
-- Guarantee: run as a statement of its own after the sessions' rows were locked, it sees every claim
-- that was committed before, and no claim for them can commit until the lock is gone. A job that is
-- being settled is skipped instead of waited for: its settle wins, or leaves it for the next pass.
-- A lease that no heartbeat has listed may never have been sent if the server of the session's call
-- is gone: one that lives gives back by itself what it could not deliver.
-- Index: jobs_held, one range a session; sessions_pkey and servers_pkey, one probe each.
--
-- $1 project ids, $2 session ids (aligned)
SELECT
    job.project_id,
    job.id::text AS id,
    job.lease_seq,
    session.has_lost_its_server AND job.lease_seq <> ALL(session.listed) AS may_be_unsent
FROM unnest($1::uuid[], $2::uuid[]) AS silent (project_id, session_id)
CROSS JOIN LATERAL (
    SELECT
        listed,
        coalesce((
            SELECT server.alive_until < clock_timestamp()
            FROM taskforge.servers AS server
            WHERE server.server_id = own.server_id
        ), true) AS has_lost_its_server
    FROM taskforge.sessions AS own
    WHERE own.project_id = silent.project_id AND own.session_id = silent.session_id
    OFFSET 0
) AS session
CROSS JOIN LATERAL (
    SELECT project_id, id, lease_seq
    FROM taskforge.jobs
    WHERE project_id = silent.project_id AND session_id = silent.session_id AND status = 3
    FOR UPDATE SKIP LOCKED
) AS job
