-- Locks an unfinished job.
--
-- Guarantee: it cannot change until this transaction ends. No row: it is finished, or there is none.
-- Index: jobs_pkey.
--
-- $1 project_id, $2 job id
SELECT status, session_id, cancel_requested_at
FROM taskforge.jobs
WHERE project_id = $1 AND id = $2
FOR UPDATE
