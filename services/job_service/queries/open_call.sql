-- Makes a lease call (a stream, or one AcquireJobs) the current one of its session.
--
-- Guarantee: from its commit on no claim serves an older call of the session (`claim_jobs` checks
-- the call). An AcquireJobs gets no row back while the session has an open stream on a living
-- replica. A session that holds leases is not renewed by it, and one that was rescued stays so.
-- Index: sessions_pkey, servers_pkey.
--
-- $1 project_id, $2 session_id, $3 worker_id, $4 lease duration, $5 call_id, $6 is a stream,
-- $7 server_id, $8 max_in_flight
INSERT INTO taskforge.sessions AS session (
    project_id, session_id, worker_id, lease_duration, call_id, call_is_stream, call_is_open,
    server_id, max_in_flight
)
VALUES ($1, $2, $3, $4, $5, $6, true, $7, $8)
ON CONFLICT (project_id, session_id) DO UPDATE
SET worker_id = excluded.worker_id,
    lease_duration = excluded.lease_duration,
    call_id = excluded.call_id,
    call_is_stream = excluded.call_is_stream,
    call_is_open = true,
    server_id = excluded.server_id,
    max_in_flight = excluded.max_in_flight
WHERE excluded.call_is_stream
   OR NOT session.call_is_stream
   OR NOT session.call_is_open
   OR NOT EXISTS (
        SELECT FROM taskforge.servers AS server
        WHERE server.server_id = session.server_id AND server.alive_until > clock_timestamp()
   )
RETURNING call_id
