-- Reads which lease call is the current one of a session.
--
-- Index: sessions_pkey.
--
-- $1 project_id, $2 session_id
SELECT call_id FROM taskforge.sessions WHERE project_id = $1 AND session_id = $2
