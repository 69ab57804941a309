-- Lists sessions that hold jobs, have an open stream on a living replica, or have spoken within a day.
--
-- Guarantee: one snapshot for the sessions and what they hold.
-- Index: sessions_pkey, servers_pkey; jobs_held, one range a session.
--
-- :project_ids, :session_id (NULL: all), :after_worker and :after_session (NULL: from the first on),
-- :page_size
SELECT
    session.project_id,
    session.session_id,
    session.worker_id,
    session.max_in_flight,
    session.draining,
    stream.is_open AS connected,
    held.n AS held_jobs,
    held.ids AS held_job_ids,
    session.created_at,
    session.last_heartbeat_at,
    session.expires_at
FROM taskforge.sessions AS session
CROSS JOIN LATERAL (
    SELECT session.call_is_stream AND session.call_is_open AND EXISTS (
        SELECT FROM taskforge.servers AS server
        WHERE server.server_id = session.server_id AND server.alive_until > clock_timestamp()
    ) AS is_open
) AS stream
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS n, (array_agg(job.id::text ORDER BY job.lease_seq))[1:100] AS ids
    FROM taskforge.jobs AS job
    WHERE job.project_id = session.project_id
      AND job.session_id = session.session_id
      AND job.status = 3
) AS held
WHERE session.project_id = ANY(CAST(:project_ids AS uuid[]))
  AND (CAST(:session_id AS uuid) IS NULL OR session.session_id = CAST(:session_id AS uuid))
  AND (
    CAST(:after_worker AS text) IS NULL
    OR (session.worker_id, session.session_id)
        > (CAST(:after_worker AS text), CAST(:after_session AS uuid))
  )
  AND (
    CAST(:session_id AS uuid) IS NOT NULL
    OR stream.is_open
    OR held.n > 0
    OR session.last_heartbeat_at > clock_timestamp() - interval '1 day'
  )
ORDER BY session.worker_id, session.session_id
LIMIT CAST(:page_size AS integer)
