-- Makes a job in the dead-letter queue for each failed one whose queue has such a queue.
--
-- Guarantee: run in the transaction that ended the jobs as FAILED, so both happen or neither. The new
-- job carries payload, labels, trace context and the last 100 failed attempts (more would make it too
-- large for a message after a few rounds), whatever the dead-letter queue's pause, limits or delays. A dead-letter queue that is deleted gets none.
-- Index: job_history_key in the partitions of today; queues_pkey.
--
-- $1 project_id, $2 ids of the failed jobs, $3 ids for the new ones (aligned)
WITH given AS MATERIALIZED (
    SELECT $1::uuid AS project_id, named.*
    FROM unnest($2::uuid[], $3::uuid[]) AS named (id, new_id)
), failed AS MATERIALIZED (
    SELECT
        job.*,
        given.new_id,
        target.id AS target_id,
        coalesce(target.max_retries, 2) + 1 AS attempts_allowed,
        nullif(job.max_attempts, coalesce(source.max_retries, 2) + 1) AS own_max_attempts
    FROM given
    JOIN taskforge.job_history AS job
        ON job.project_id = given.project_id AND job.id = given.id AND job.status = 5
        -- They ended in this transaction, so the other partitions need no look.
        AND job.completed_at >= transaction_timestamp()
    JOIN taskforge.queues AS source ON source.project_id = $1 AND source.id = job.queue_id
    JOIN taskforge.queues AS target
        ON target.project_id = $1 AND target.id = source.dead_letter_queue_id
        AND target.deleted_at IS NULL
), made AS (
    INSERT INTO taskforge.jobs (
        project_id, id, queue_id, created_at, updated_at, max_attempts, payload_bytes, status,
        priority, timeout, job_type, payload, attempts, labels, traceparent, tracestate,
        origin_job_id, origin_queue_id, origin_failed_at, origin_max_attempts
    )
    SELECT
        $1, new_id, target_id, moment.now, moment.now, attempts_allowed, payload_bytes, 1,
        priority, timeout, job_type, payload,
        jsonb_path_query_array(attempts, '$[last - 99 to last]'), labels, traceparent, tracestate,
        id, queue_id, completed_at, own_max_attempts
    FROM failed, (SELECT clock_timestamp() AS now) AS moment
), marked AS (
    UPDATE taskforge.job_history AS job
    SET dead_letter_job_id = failed.new_id
    FROM failed
    WHERE job.project_id = failed.project_id AND job.id = failed.id
      AND job.completed_at = failed.completed_at
      AND job.completed_at >= transaction_timestamp()
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, target_id, 1, count(*) FROM failed GROUP BY target_id
)
SELECT id::text AS id, target_id FROM failed
