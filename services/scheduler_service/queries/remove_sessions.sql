-- Removes sessions that hold nothing. Their rows must be locked (`lock_departed_sessions`).
--
-- Guarantee: run as a statement of its own after the sessions' rows were locked, it sees every claim
-- that was committed before; a session that a job names is kept.
-- Index: sessions_pkey; jobs_held, one probe a session (a scalar subquery, because NOT EXISTS may be
-- planned as a join that reads all running jobs).
--
-- $1 project ids, $2 session ids (aligned)
DELETE FROM taskforge.sessions AS session
USING unnest($1::uuid[], $2::uuid[]) AS departed (project_id, session_id)
WHERE session.project_id = departed.project_id
  AND session.session_id = departed.session_id
  AND (
      SELECT true
      FROM taskforge.jobs AS job
      WHERE job.project_id = departed.project_id
        AND job.session_id = departed.session_id
        AND job.status = 3
      LIMIT 1
  ) IS NULL
RETURNING session.session_id
