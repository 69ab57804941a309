-- Reads the rules of queues, to tell why a job was not taken.
--
-- Index: queues_pkey, one probe a queue.
--
-- $1 project_id, $2 queue ids
SELECT id, accepts_jobs, coalesce(max_payload_bytes, 262144) AS max_payload_bytes
FROM taskforge.queues
WHERE project_id = $1 AND id = ANY($2::uuid[]) AND deleted_at IS NULL
