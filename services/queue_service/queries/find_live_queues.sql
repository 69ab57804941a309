-- Which of the queues are there.
--
-- Guarantee: none for the time after it.
-- Index: queues_pkey, one probe a queue.
--
-- $1 project_id, $2 queue ids
SELECT id
FROM taskforge.queues
WHERE project_id = $1 AND id = ANY($2::uuid[]) AND deleted_at IS NULL
