-- Locks those of the named jobs that are still in the queue and in one of the statuses.
--
-- Guarantee: a row that another transaction changes is waited for and then judged as that left it;
-- what comes back cannot change until this transaction ends. Rows are locked in the order of the
-- array: give it ascending.
-- Index: jobs_pkey, one probe a job.
--
-- $1 project_id, $2 queue id, $3 job ids, $4 statuses
SELECT job.id::text AS id
FROM unnest($3::uuid[]) AS named (id)
CROSS JOIN LATERAL (
    SELECT candidate.id
    FROM taskforge.jobs AS candidate
    WHERE candidate.project_id = $1
      AND candidate.id = named.id
      AND candidate.queue_id = $2
      AND candidate.status = ANY($4::smallint[])
    FOR UPDATE
) AS job
