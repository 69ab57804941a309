-- Takes waiting jobs back to the queues that they came from, with no attempt used: each named one
-- that is still in the queue, still waits, and that no other transaction has locked.
--
-- Guarantee: the rows and the counts of both queues change together; a running job is never touched.
-- The origin queue's row is locked against its deletion until this transaction ends, so a job goes
-- back only to a queue that is there, and a deletion that waited for this counts it.
-- Of the n jobs that were taken back before ($4) and now, the i-th is ready i / jobs_per_second after
-- $5; without a pace ($6 is NULL), at once.
-- Index: jobs_pkey, two probes a job; queues_pkey.
--
-- $1 project_id, $2 queue id, $3 job ids (the order of their turns), $4 jobs taken back before,
-- $5 beginning of the first turn, $6 jobs per second
WITH chosen AS MATERIALIZED (
    SELECT named.turn, job.id, job.status, job.origin_queue_id, origin.max_retries
    FROM unnest($3::uuid[]) WITH ORDINALITY AS named (id, turn)
    CROSS JOIN LATERAL (
        SELECT candidate.id, candidate.status, candidate.origin_queue_id
        FROM taskforge.jobs AS candidate
        WHERE candidate.project_id = $1
          AND candidate.id = named.id
          AND candidate.queue_id = $2
          AND candidate.lease_seq IS NULL
          AND candidate.origin_queue_id <> $2
        FOR UPDATE SKIP LOCKED
    ) AS job
    CROSS JOIN LATERAL (
        SELECT queue.max_retries
        FROM taskforge.queues AS queue
        WHERE queue.project_id = $1
          AND queue.id = job.origin_queue_id
          AND queue.deleted_at IS NULL
        FOR SHARE
    ) AS origin
), timed AS (
    SELECT
        chosen.*,
        moment.now,
        $5::timestamptz
            + (($4::bigint + row_number() OVER (ORDER BY chosen.turn) - 1)
               * interval '1 second' / $6::double precision) AS due
    FROM chosen, (SELECT clock_timestamp() AS now) AS moment
), moved AS (
    UPDATE taskforge.jobs AS job
    SET queue_id = timed.origin_queue_id,
        status = CASE WHEN timed.due > timed.now THEN 2 ELSE 1 END,
        scheduled_for = CASE WHEN timed.due > timed.now THEN timed.due END,
        attempt_count = 0,
        undelivered_count = 0,
        max_attempts = coalesce(timed.max_retries, 2) + 1,
        last_seq = NULL,
        last_status = NULL,
        updated_at = timed.now
    FROM timed
    WHERE job.project_id = $1 AND job.id = timed.id
    RETURNING job.queue_id, job.status, timed.status AS earlier_status
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, $2, earlier_status, -count(*) FROM moved GROUP BY earlier_status
    UNION ALL
    SELECT $1, queue_id, status, count(*) FROM moved GROUP BY queue_id, status
)
SELECT queue_id, status, count(*) AS n FROM moved GROUP BY queue_id, status
