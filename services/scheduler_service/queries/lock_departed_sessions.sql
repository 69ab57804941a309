-- Locks sessions that nobody has used for a while: no heartbeat, no lease, and no open call on a
-- living replica since then.
--
-- Guarantee: until this transaction ends no claim, call or heartbeat of what comes back can pass.
-- A session that is in use at this moment is locked by that, and skipped.
-- Index: servers_pkey; the sessions are scanned.
--
-- $1 for how long, $2 sessions at most
SELECT session.project_id, session.session_id
FROM taskforge.sessions AS session
WHERE greatest(session.created_at, session.expires_at, session.last_heartbeat_at)
      < clock_timestamp() - $1::interval
  AND NOT (
      session.call_is_open
      AND EXISTS (
          SELECT FROM taskforge.servers AS server
          WHERE server.server_id = session.server_id AND server.alive_until > clock_timestamp()
      )
  )
LIMIT $2
FOR UPDATE OF session SKIP LOCKED
