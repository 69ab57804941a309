-- How sessions stand, and whether each of them may be leased what it was dealt: parts of a statement that
-- leases jobs to them. It gives the sessions as `named (session_id, call_id, max_in_flight)`: their
-- current calls, and how many leases each may hold, as it was dealt by; $1 is the project_id.
--
-- Guarantee: a session whose current call is not the given one, that was told to take no more, that was
-- rescued and has not spoken since, or whose leases have expired, may take nothing, and none of this can
-- change until the transaction ends. One that holds nothing needs no heartbeat: its clock starts here.
-- One that another transaction has locked is left out of `standing`: it must not hold up the others.
-- `admission.is_granted` is whether each of them may take jobs, and may hold as many as it was dealt by;
-- `told` is how each stands, as JSON.
-- Index: sessions_pkey and jobs_held, one probe a session in each.
session AS MATERIALIZED (
    SELECT
        own.project_id,
        own.session_id,
        own.call_id = named.call_id AS is_current,
        own.must_heartbeat OR own.draining AS must_wait,
        own.expires_at,
        own.max_in_flight,
        own.max_in_flight = named.max_in_flight AS is_as_dealt,
        own.draining,
        -- No NOT EXISTS: it may be planned as a hash of all leases there are.
        coalesce((
            SELECT false
            FROM taskforge.jobs AS job
            WHERE job.project_id = $1 AND job.session_id = own.session_id AND job.status = 3
            LIMIT 1
        ), true) AS is_empty
    FROM named
    CROSS JOIN LATERAL (
        SELECT *
        FROM taskforge.sessions AS present
        WHERE present.project_id = $1 AND present.session_id = named.session_id
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS own
), started AS (
    UPDATE taskforge.sessions AS own
    SET expires_at = clock_timestamp() + own.lease_duration
    FROM session
    WHERE session.is_current AND NOT session.must_wait AND session.is_empty
      AND own.project_id = session.project_id AND own.session_id = session.session_id
    RETURNING own.session_id, own.expires_at
), standing AS MATERIALIZED (
    SELECT
        session.session_id,
        session.is_current,
        session.max_in_flight,
        session.draining,
        session.is_as_dealt,
        coalesce(started.expires_at, session.expires_at) AS expires_at,
        session.is_current AND NOT session.must_wait
            AND coalesce(started.expires_at, session.expires_at) > clock_timestamp() AS may_take
    FROM session
    LEFT JOIN started ON started.session_id = session.session_id
), told AS (
    SELECT json_build_object(
        'session_id', session_id,
        'is_current', is_current,
        'may_take', may_take,
        'is_as_dealt', is_as_dealt,
        'expires_at', (extract(epoch FROM expires_at) * 1000000)::bigint,
        'max_in_flight', max_in_flight,
        'draining', draining
    )::text AS session
    FROM standing
), admission AS MATERIALIZED (
    SELECT count(*) = (SELECT count(*) FROM named) AS is_granted
    FROM standing
    WHERE may_take AND is_as_dealt
)
