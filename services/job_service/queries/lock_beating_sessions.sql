-- Locks the sessions that send a heartbeat, and reads what judging it needs.
--
-- Guarantee: claims and rescues of the sessions that it locks have ended before, or begin after this
-- transaction. Rows are locked in the order of their ids. A session that another transaction has
-- locked comes back as not locked, without what it says: it must not hold up the others. One that has
-- no row here does not exist.
-- Index: sessions_pkey, servers_pkey, one probe a session in each; a second one where it is locked.
--
-- $1 project_id, $2 session ids
SELECT
    named.id AS session_id,
    session.session_id IS NOT NULL AS is_locked,
    session.last_sequence,
    session.lease_duration,
    session.listed,
    session.omitted,
    session.expires_at,
    session.call_id,
    session.max_in_flight,
    session.draining,
    session.has_stream,
    session.call_is_stream AND NOT session.has_stream AS must_reconnect
FROM (SELECT given.id FROM unnest($2::uuid[]) AS given (id) ORDER BY given.id) AS named
LEFT JOIN LATERAL (
    SELECT
        own.*,
        own.call_is_stream AND own.call_is_open AND EXISTS (
            SELECT FROM taskforge.servers AS server
            WHERE server.server_id = own.server_id AND server.alive_until > clock_timestamp()
        ) AS has_stream
    FROM taskforge.sessions AS own
    WHERE own.project_id = $1 AND own.session_id = named.id
    FOR NO KEY UPDATE OF own SKIP LOCKED
) AS session ON true
WHERE session.session_id IS NOT NULL
   OR (
        -- No EXISTS: as a join it may come first.
        SELECT true
        FROM taskforge.sessions AS known
        WHERE known.project_id = $1 AND known.session_id = named.id
   )
