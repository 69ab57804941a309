-- What is about to be created: parts of a statement that creates jobs, which inserts the items into `jobs`
-- that have no request_id or are among `remembered`.
--
-- Guarantee: the queue's rule is read in the statement that inserts, so a pause, a lower payload
-- limit or a deletion binds every insert that begins after its commit. Of equal request ids the first
-- one's job is made.
-- All jobs of the statement have one created_at (a join may read a subquery again and again, but not
-- a materialized one), so their ids, which ascend, give their order. `is_free` is whether a job of the
-- queue may be leased without counting others.
-- Index: queues_pkey, one probe a job (the list is made as in `finish_jobs`); request_ids_pkey.
--
-- $1 project_id; aligned arrays, of which a shorter one ends in NULLs: $2 ids, $3 queue ids,
-- $4 job types, $5 payloads (JSON), $6 priorities, $7 max attempts (NULL: the queue's), $8 scheduled for,
-- $9 timeouts, $10 labels (JSON), $11 traceparents, $12 tracestates, $13 request ids, $14 content hashes
moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), item AS MATERIALIZED (
    SELECT
        given.*,
        coalesce(given.max_attempts, coalesce(queue.max_retries, 2) + 1) AS attempts_allowed,
        moment.now,
        wait.until,
        queue.priority AS queue_priority,
        queue.timeout AS queue_timeout,
        queue.is_active AND queue.max_concurrent_jobs IS NULL AND queue.rate_limit_per_minute IS NULL
            AS is_free,
        (CASE WHEN wait.until > moment.now THEN 2 ELSE 1 END)::smallint AS status
    FROM (
        SELECT $1::uuid AS project_id, octet_length(each.payload) AS payload_bytes, each.*
        FROM unnest(
            $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::smallint[], $7::integer[],
            $8::timestamptz[], $9::interval[], $10::text[], $11::text[], $12::text[], $13::text[],
            $14::bytea[]
        ) AS each (
            id, queue_id, job_type, payload, priority, max_attempts, scheduled_for, timeout, labels,
            traceparent, tracestate, request_id, content_hash
        )
        OFFSET 0
    ) AS given
    JOIN taskforge.queues AS queue
        ON queue.project_id = given.project_id AND queue.id = given.queue_id
    CROSS JOIN moment
    CROSS JOIN LATERAL (
        SELECT greatest(
            given.scheduled_for,
            CASE WHEN queue.delays_by_priority THEN moment.now + CASE
                WHEN given.priority <= 2 THEN coalesce(queue.delay_low, interval '30 seconds')
                WHEN given.priority <= 5 THEN coalesce(queue.delay_medium, interval '10 seconds')
                WHEN given.priority <= 7 THEN coalesce(queue.delay_high, interval '5 seconds')
                ELSE coalesce(queue.delay_urgent, interval '0')
            END END
        ) AS until
    ) AS wait
    WHERE queue.deleted_at IS NULL
      AND queue.accepts_jobs
      AND given.payload_bytes <= coalesce(queue.max_payload_bytes, 262144)
), remembered AS (
    INSERT INTO taskforge.request_ids (project_id, request_id, content_hash, job_ids)
    SELECT $1, request_id, content_hash, ARRAY[id]
    FROM item
    WHERE request_id IS NOT NULL
    ORDER BY request_id, id
    ON CONFLICT DO NOTHING
    RETURNING job_ids[1] AS id
)
