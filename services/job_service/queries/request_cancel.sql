-- Asks for the cancellation of a running job; asking again changes nothing.
--
-- Index: jobs_pkey.
--
-- $1 project_id, $2 job id
UPDATE taskforge.jobs
SET cancel_requested_at = clock_timestamp()
WHERE project_id = $1 AND id = $2 AND status = 3 AND cancel_requested_at IS NULL
