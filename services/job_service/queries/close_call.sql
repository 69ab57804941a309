-- Notes that a lease call has ended, unless a newer one took its place.
--
-- Index: sessions_pkey.
--
-- $1 project_id, $2 session_id, $3 call_id
UPDATE taskforge.sessions
SET call_is_open = false
WHERE project_id = $1 AND session_id = $2 AND call_id = $3
