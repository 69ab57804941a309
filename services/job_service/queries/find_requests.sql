-- Reads what earlier creations with these request ids made.
--
-- Guarantee: run as a statement of its own after an insert that met a conflict, it sees the row that
-- the insert conflicted with.
-- Index: request_ids_pkey, one probe a request id (the list is made as in `finish_jobs`).
--
-- $1 project_id, $2 request ids
SELECT known.request_id, known.content_hash, known.job_ids, known.errors
FROM (
    SELECT $1::uuid AS project_id, given.request_id
    FROM unnest($2::text[]) AS given (request_id)
    OFFSET 0
) AS named
JOIN taskforge.request_ids AS known
    ON known.project_id = named.project_id AND known.request_id = named.request_id
