-- Notes that sessions were rescued: they get nothing until they speak, and what their heartbeats
-- said about their leases is forgotten. Their rows must be locked (`lock_silent_sessions`).
--
-- Index: sessions_pkey.
--
-- $1 project ids, $2 session ids (aligned)
UPDATE taskforge.sessions AS session
SET must_heartbeat = true, listed = '{}', omitted = '{}'
FROM unnest($1::uuid[], $2::uuid[]) AS rescued (project_id, session_id)
WHERE session.project_id = rescued.project_id AND session.session_id = rescued.session_id
RETURNING session.session_id
