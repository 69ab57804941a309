-- Remembers a creation of many jobs under one request_id.
--
-- Guarantee: of several transactions with the same request_id one gets a row back; the others, which
-- wait for its end, get none and must undo what they made.
-- Index: request_ids_pkey.
--
-- $1 project_id, $2 request_id, $3 content hash, $4 job ids (NULL where none was made), $5 errors
INSERT INTO taskforge.request_ids (project_id, request_id, content_hash, job_ids, errors)
VALUES ($1, $2, $3, $4::uuid[], $5)
ON CONFLICT DO NOTHING
RETURNING true AS remembered
