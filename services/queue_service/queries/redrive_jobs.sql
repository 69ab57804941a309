-- Takes waiting jobs back to the queues that they came from, with no attempt used: each named one
-- that is still in the queue, still waits, and that no other transaction has locked. It has as many
-- attempts as the queue gives, or as it had there of its own. Of the failed ones the last 100 stay.
--
-- Guarantee: the rows and the counts of both queues change together; a running job is never touched.
-- The origin queue's row is locked against its deletion until this transaction ends, so a job goes
-- back only to a queue that is there, and a deletion that waited for this counts it. A settle that was
-- answered before stays answered until the next lease (last_seq, last_status).
-- After $4 jobs that were taken back before, the i-th is ready ($4 + i) / jobs_per_second after $5,
-- counted from zero; without a pace ($6 is NULL), at once.
-- Index: jobs_pkey, two probes a job; queues_pkey. What else a row must be is looked at after its
-- lock: as a condition of the probe it would invite the planner to walk another index.
--
-- $1 project_id, $2 queue id, $3 job ids (the order of their turns), $4 jobs taken back before,
-- $5 beginning of the first turn, $6 jobs per second
WITH locked AS MATERIALIZED (
    SELECT
        named.turn, job.id, job.status, job.queue_id, job.origin_queue_id, job.origin_max_attempts
    FROM unnest($3::uuid[]) WITH ORDINALITY AS named (id, turn)
    CROSS JOIN LATERAL (
        SELECT
            candidate.id, candidate.status, candidate.queue_id, candidate.origin_queue_id,
            candidate.origin_max_attempts
        FROM taskforge.jobs AS candidate
        WHERE candidate.project_id = $1 AND candidate.id = named.id AND candidate.lease_seq IS NULL
        FOR UPDATE SKIP LOCKED
    ) AS job
), chosen AS MATERIALIZED (
    SELECT
        locked.turn, locked.id, locked.status, locked.origin_queue_id, locked.origin_max_attempts,
        origin.max_retries, origin.deleted_at
    FROM locked
    CROSS JOIN LATERAL (
        SELECT queue.max_retries, queue.deleted_at
        FROM taskforge.queues AS queue
        WHERE queue.project_id = $1 AND queue.id = locked.origin_queue_id
        FOR SHARE
    ) AS origin
    WHERE locked.queue_id = $2 AND locked.origin_queue_id <> $2
), moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), timed AS MATERIALIZED (
    SELECT
        chosen.*,
        moment.now,
        $5::timestamptz
            + (($4::bigint + row_number() OVER (ORDER BY chosen.turn) - 1)
               * interval '1 second' / $6::double precision) AS due
    FROM chosen, moment
    WHERE chosen.deleted_at IS NULL
), moved AS (
    UPDATE taskforge.jobs AS job
    SET queue_id = timed.origin_queue_id,
        status = CASE WHEN timed.due > timed.now THEN 2 ELSE 1 END,
        scheduled_for = CASE WHEN timed.due > timed.now THEN timed.due END,
        attempt_count = 0,
        undelivered_count = 0,
        max_attempts = coalesce(timed.origin_max_attempts, timed.max_retries + 1, 3),
        attempts = jsonb_path_query_array(job.attempts, '$[last - 99 to last]'),
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
