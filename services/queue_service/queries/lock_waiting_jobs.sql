-- Locks those of the named jobs that are still in the queue and in one of the statuses.
--
-- Guarantee: a row that another transaction changes is waited for and then judged as that left it;
-- what comes back cannot change until this transaction ends. Rows are locked in the order of the
-- array: give it ascending.
-- Index: jobs_pkey, one probe a job. Queue and status are looked at after the lock: as conditions of
-- the probe they would invite the planner to walk an index that begins with them.
--
-- $1 project_id, $2 queue id, $3 job ids, $4 statuses
WITH locked AS MATERIALIZED (
    SELECT job.id, job.queue_id, job.status
    FROM unnest($3::uuid[]) AS named (id)
    CROSS JOIN LATERAL (
        SELECT candidate.id, candidate.queue_id, candidate.status
        FROM taskforge.jobs AS candidate
        WHERE candidate.project_id = $1 AND candidate.id = named.id AND candidate.lease_seq IS NULL
        FOR UPDATE
    ) AS job
)
SELECT id::text AS id
FROM locked
WHERE queue_id = $2 AND status = ANY($4::smallint[])
