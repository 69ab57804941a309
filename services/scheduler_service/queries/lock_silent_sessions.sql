-- Locks sessions that hold leases and have not been heard of for longer than their lease duration,
-- the longest silent first.
--
-- Guarantee: the expiry is checked again under the row's lock, so a session whose heartbeat came
-- first is left out; and until this transaction ends no heartbeat and no claim of what comes back
-- can pass. A session that is locked already is skipped: it speaks, claims or is being rescued.
-- Index: jobs_held, one probe an expired session (a scalar subquery, because EXISTS may be planned as
-- a join that reads all running jobs first). The sessions are scanned: each heartbeat changes
-- expires_at, which no index could follow cheaply.
--
-- $1 sessions at most
SELECT session.project_id, session.session_id
FROM taskforge.sessions AS session
WHERE session.expires_at < clock_timestamp()
  AND (
      SELECT true
      FROM taskforge.jobs AS job
      WHERE job.project_id = session.project_id
        AND job.session_id = session.session_id
        AND job.status = 3
      LIMIT 1
  )
ORDER BY session.expires_at
LIMIT $1
FOR NO KEY UPDATE OF session SKIP LOCKED
