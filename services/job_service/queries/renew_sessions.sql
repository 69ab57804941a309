-- Renews sessions by their heartbeats. Their rows must be locked (`lock_beating_sessions`).
--
-- Guarantee: everything that a session holds is renewed by one write to one row.
-- Index: sessions_pkey, one probe a session (the list is made as in `finish_jobs`).
--
-- $1 project_id; aligned arrays: $2 session ids (ascending), $3 sequences,
-- $4 listed leases, $5 leases that the heartbeat left out (both as text of a bigint[])
UPDATE taskforge.sessions AS session
SET expires_at = clock_timestamp() + session.lease_duration,
    must_heartbeat = false,
    last_sequence = beat.sequence,
    last_heartbeat_at = clock_timestamp(),
    listed = beat.listed::bigint[],
    omitted = beat.omitted::bigint[]
FROM (
    SELECT $1::uuid AS project_id, given.*
    FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[])
        AS given (session_id, sequence, listed, omitted)
    OFFSET 0
) AS beat
WHERE session.project_id = beat.project_id AND session.session_id = beat.session_id
RETURNING session.session_id, session.expires_at
