-- Counts the sessions of a project that have an open stream on a living replica, but for the named
-- ones, of which it tells which have one.
--
-- Guarantee: exact as of this statement's snapshot; a stream counts until its end is noted.
-- Index: sessions_open_streams for the others, up to the most, sessions_pkey for the named ones,
-- servers_pkey of either.
--
-- $1 project_id, $2 session ids, $3 the most to count
SELECT
    (
        SELECT count(*)::integer
        FROM (
            SELECT
            FROM taskforge.sessions AS session
            WHERE session.project_id = $1
              AND session.call_is_stream
              AND session.call_is_open
              AND session.session_id <> ALL($2::uuid[])
              AND EXISTS (
                    SELECT FROM taskforge.servers AS server
                    WHERE server.server_id = session.server_id
                      AND server.alive_until > clock_timestamp()
              )
            LIMIT $3::integer
        ) AS other
    ) AS others,
    ARRAY(
        SELECT own.session_id
        FROM unnest($2::uuid[]) AS named (session_id)
        CROSS JOIN LATERAL (
            -- Whether a stream is open is asked outside: else the planner may walk all open ones.
            SELECT *
            FROM taskforge.sessions AS session
            WHERE session.project_id = $1 AND session.session_id = named.session_id
            OFFSET 0
        ) AS own
        WHERE own.call_is_stream
          AND own.call_is_open
          AND EXISTS (
                SELECT FROM taskforge.servers AS server
                WHERE server.server_id = own.server_id
                  AND server.alive_until > clock_timestamp()
          )
    ) AS named
