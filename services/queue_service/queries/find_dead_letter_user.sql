-- The name of a queue that has the given one as its dead-letter queue, the first by name; none when
-- nobody does.
--
-- Guarantee: none for the time after it, unless the caller has the project's turn
-- (`lock_dead_letters`).
-- Index: queues_dead_letter.
SELECT name
FROM taskforge.queues
WHERE project_id = CAST(:project_id AS uuid)
  AND dead_letter_queue_id = CAST(:queue_id AS uuid)
  AND deleted_at IS NULL
ORDER BY name
LIMIT 1
