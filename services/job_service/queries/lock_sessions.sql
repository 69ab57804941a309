-- Locks the sessions that a claim is for, and tells which may take jobs.
--
-- Guarantee: a session whose current call is not the given one, that was told to take no more, that
-- was rescued and has not spoken since, or whose leases have expired, may take nothing; and none of
-- this can change until this transaction ends. A session that holds nothing needs no heartbeat: its
-- clock starts here. A session that another transaction has locked is left out of the answer: it must
-- not hold up the others.
-- The call's current terms come with it: what a claim deals is bound by them.
-- Index: sessions_pkey, jobs_held, one probe a session in each.
--
-- $1 project_id, $2 session ids, $3 call ids
WITH locked AS MATERIALIZED (
    SELECT
        session.project_id,
        session.session_id,
        session.call_id = ANY($3::uuid[]) AS is_current,
        session.must_heartbeat OR session.draining AS must_wait,
        session.expires_at,
        session.max_in_flight,
        session.draining,
        -- No NOT EXISTS: it may be planned as a hash of all leases there are.
        coalesce((
            SELECT false
            FROM taskforge.jobs AS job
            WHERE job.project_id = $1 AND job.session_id = session.session_id AND job.status = 3
            LIMIT 1
        ), true) AS is_empty
    FROM unnest($2::uuid[]) AS named (session_id)
    CROSS JOIN LATERAL (
        SELECT *
        FROM taskforge.sessions AS own
        WHERE own.project_id = $1 AND own.session_id = named.session_id
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS session
), started AS (
    UPDATE taskforge.sessions AS session
    SET expires_at = clock_timestamp() + session.lease_duration
    FROM locked
    WHERE locked.is_current AND NOT locked.must_wait AND locked.is_empty
      AND session.project_id = locked.project_id AND session.session_id = locked.session_id
    RETURNING session.session_id, session.expires_at, session.max_in_flight
)
SELECT
    session_id,
    true AS is_current,
    (extract(epoch FROM expires_at) * 1000000)::bigint AS expires_at,
    true AS may_take,
    max_in_flight,
    false AS draining
FROM started
UNION ALL
SELECT
    session_id,
    is_current,
    (extract(epoch FROM expires_at) * 1000000)::bigint,
    is_current AND NOT must_wait AND expires_at > clock_timestamp(),
    max_in_flight,
    draining
FROM locked
WHERE NOT (is_current AND NOT must_wait AND is_empty)
