-- Creates jobs: each whose queue takes it now and whose request_id is new, or that has none.
--
-- Guarantee: a job, the memory of its request_id and the counts come into being together. What is
-- missing from the answer was refused or is a repetition; nothing of it was written.
-- Index: those of `item`.
--
-- $1 to $14: as `item` says.
WITH
-- part: item
, made AS (
    INSERT INTO taskforge.jobs (
        project_id, id, queue_id, created_at, updated_at, scheduled_for, max_attempts,
        payload_bytes, status, priority, timeout, job_type, payload, labels, traceparent, tracestate
    )
    SELECT
        $1, id, queue_id, now, now, until, attempts_allowed,
        payload_bytes, status, priority, timeout, job_type, payload::json, labels::jsonb,
        traceparent, tracestate
    FROM item
    WHERE request_id IS NULL OR id IN (SELECT id FROM remembered)
    RETURNING id, queue_id, status, max_attempts, created_at, scheduled_for
), counted AS (
    INSERT INTO taskforge.queue_deltas (project_id, queue_id, status, n)
    SELECT $1, queue_id, status, count(*) FROM made GROUP BY queue_id, status
)
-- Jobs that are alike in all that is told of them share a row: most batches have one.
SELECT
    array_agg(id) AS ids,
    status,
    max_attempts,
    (extract(epoch FROM created_at) * 1000000)::bigint AS created_at,
    (extract(epoch FROM scheduled_for) * 1000000)::bigint AS scheduled_for
FROM made
GROUP BY status, max_attempts, made.created_at, made.scheduled_for
