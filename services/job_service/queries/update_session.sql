-- Changes how many jobs a session may take.
--
-- Guarantee: a claim that begins after its commit goes by it (`claim_jobs` checks it). No row:
-- there is no such session.
-- Index: sessions_pkey.
--
-- $1 project_id, $2 session_id, $3 max_in_flight (NULL: as before), $4 draining (NULL: as before)
UPDATE taskforge.sessions
SET max_in_flight = coalesce($3::integer, max_in_flight),
    draining = coalesce($4::boolean, draining)
WHERE project_id = $1 AND session_id = $2
RETURNING session_id
