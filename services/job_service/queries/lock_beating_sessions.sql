-- Locks the sessions that send a heartbeat, and reads what judging it needs.
--
-- Guarantee: claims and rescues of these sessions have ended before, or begin after this
-- transaction. Rows are locked in the order of their ids.
-- Index: sessions_pkey, servers_pkey, one probe a session in each.
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
FROM (SELECT given.id FROM unnest($2::uuid[]) AS given (id) ORDER BY given.id) AS named
CROSS JOIN LATERAL (
    SELECT *
    FROM taskforge.sessions AS own
    WHERE own.project_id = $1 AND own.session_id = named.id
    FOR NO KEY UPDATE
) AS session
