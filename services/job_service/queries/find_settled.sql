-- Finds what settles with these tokens were answered, to answer a repetition alike.
--
-- Guarantee: waiting jobs and history are read in one statement, so a job that moves between them is
-- found in one of them. A token that was superseded, or never settled by its worker, is not found.
-- Index: jobs_pkey; job_history_key, one probe a partition (the list is made as in `finish_jobs`).
--
-- $1 project_id, $2 job ids, $3 lease sequences (aligned)
WITH token AS MATERIALIZED (
    SELECT $1::uuid AS project_id, given.*
    FROM unnest($2::uuid[], $3::bigint[]) AS given (id, lease_seq)
)
SELECT job.id::text AS id, job.last_seq AS lease_seq, job.last_status AS status
FROM token
JOIN taskforge.jobs AS job
    ON job.project_id = token.project_id AND job.id = token.id AND job.last_seq = token.lease_seq
UNION ALL
SELECT job.id::text, job.last_seq, job.last_status
FROM token
JOIN taskforge.job_history AS job
    ON job.project_id = token.project_id AND job.id = token.id AND job.last_seq = token.lease_seq
