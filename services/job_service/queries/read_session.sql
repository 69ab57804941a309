-- Reads which lease call is the current one of a session, and how many jobs it may take.
--
-- Index: sessions_pkey.
--
-- $1 project_id, $2 session_id
SELECT call_id, max_in_flight, draining
FROM taskforge.sessions
WHERE project_id = $1 AND session_id = $2
