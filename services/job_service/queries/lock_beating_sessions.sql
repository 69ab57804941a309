-- Locks the sessions that send a heartbeat, and reads what judging it needs.
--
-- Guarantee: claims and rescues of these sessions have ended before, or begin after this
-- transaction. Rows are locked in the order of their ids.
-- Index: sessions_pkey, servers_pkey.
--
-- $1 project_id, $2 session ids
SELECT
    session.session_id,
    session.last_sequence,
    session.lease_duration,
    session.listed,
    session.omitted,
    session.expires_at,
    session.call_is_stream AND (
        NOT session.call_is_open
        OR NOT EXISTS (
            SELECT FROM taskforge.servers AS server
            WHERE server.server_id = session.server_id AND server.alive_until > clock_timestamp()
        )
    ) AS must_reconnect
FROM taskforge.sessions AS session
WHERE session.project_id = $1 AND session.session_id = ANY($2::uuid[])
ORDER BY session.session_id
FOR NO KEY UPDATE OF session
