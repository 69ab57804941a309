-- Whether jobs that fail in one queue, and in its dead-letter queue, and so on, come to another one
-- in the end; also when both are the same.
--
-- Guarantee: it ends even where rows made past this service form a cycle, since UNION drops what was
-- seen. Deleted queues lead nowhere. The caller must have the project's turn (`lock_dead_letters`).
-- Index: queues_pkey, one probe a step.
WITH RECURSIVE way (queue_id) AS (
    SELECT CAST(:first AS uuid)
    UNION
    SELECT queue.dead_letter_queue_id
    FROM way
    JOIN taskforge.queues AS queue
        ON queue.project_id = CAST(:project_id AS uuid) AND queue.id = way.queue_id
    WHERE queue.deleted_at IS NULL AND queue.dead_letter_queue_id IS NOT NULL
)
SELECT EXISTS (SELECT FROM way WHERE queue_id = CAST(:last AS uuid))
