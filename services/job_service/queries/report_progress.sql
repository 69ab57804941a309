-- Stores the progress that workers report with their heartbeats.
--
-- Guarantee: only the holder of the current lease changes it.
-- Index: jobs_pkey, one probe a job (the list is made as in `finish_jobs`).
--
-- $1 project_id, $2 job ids (ascending), $3 lease sequences, $4 progress (JSON)
UPDATE taskforge.jobs AS job
SET progress = report.progress::json
FROM (
    SELECT $1::uuid AS project_id, given.*
    FROM unnest($2::uuid[], $3::bigint[], $4::text[]) AS given (id, lease_seq, progress)
    OFFSET 0
) AS report
WHERE job.project_id = report.project_id
  AND job.id = report.id
  AND job.lease_seq = report.lease_seq
