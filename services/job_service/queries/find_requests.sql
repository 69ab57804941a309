-- Reads what earlier creations with these request ids made.
--
-- Guarantee: run as a statement of its own after an insert that met a conflict, it sees the row that
-- the insert conflicted with.
-- Index: request_ids_pkey, one probe a request id.
--
-- $1 project_id, $2 request ids
SELECT request_id, content_hash, job_ids, errors
FROM taskforge.request_ids
WHERE project_id = $1 AND request_id = ANY($2::text[])
