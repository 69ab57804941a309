-- Limits, dead letters, delays by priority, and pauses that end by themselves. Every column that is
-- added is NULL or has a constant default, so no table is rewritten.

ALTER TABLE taskforge.queues
    ADD COLUMN accepts_jobs boolean NOT NULL DEFAULT true,
    ADD COLUMN resume_at timestamptz,
    ADD COLUMN max_concurrent_jobs integer CHECK (max_concurrent_jobs BETWEEN 1 AND 100000),
    ADD COLUMN rate_limit_per_minute integer CHECK (rate_limit_per_minute BETWEEN 1 AND 1000000),
    ADD COLUMN dead_letter_queue_id uuid,
    ADD COLUMN delays_by_priority boolean NOT NULL DEFAULT false,
    ADD COLUMN delay_low interval CHECK (delay_low BETWEEN '0 seconds' AND '1 hour'),
    ADD COLUMN delay_medium interval CHECK (delay_medium BETWEEN '0 seconds' AND '1 hour'),
    ADD COLUMN delay_high interval CHECK (delay_high BETWEEN '0 seconds' AND '1 hour'),
    ADD COLUMN delay_urgent interval CHECK (delay_urgent BETWEEN '0 seconds' AND '1 hour');
UPDATE taskforge.queues SET accepts_jobs = false WHERE NOT is_active;
ALTER TABLE taskforge.queues
    ADD CONSTRAINT queues_paused CHECK (NOT is_active OR (accepts_jobs AND resume_at IS NULL)),
    ADD CONSTRAINT queues_dead_letters CHECK (dead_letter_queue_id <> id);
CREATE INDEX queues_dead_letter ON taskforge.queues (dead_letter_queue_id)
    WHERE dead_letter_queue_id IS NOT NULL;
CREATE INDEX queues_resume ON taskforge.queues (resume_at) WHERE resume_at IS NOT NULL;

-- Where a job of a dead-letter queue comes from, and the job that was made for a failed one.
ALTER TABLE taskforge.jobs
    ADD COLUMN origin_job_id uuid,
    ADD COLUMN origin_queue_id uuid,
    ADD COLUMN origin_failed_at timestamptz,
    ADD CONSTRAINT jobs_origin CHECK (num_nulls(origin_job_id, origin_queue_id, origin_failed_at) IN (0, 3));
ALTER TABLE taskforge.job_history
    ADD COLUMN origin_job_id uuid,
    ADD COLUMN origin_queue_id uuid,
    ADD COLUMN origin_failed_at timestamptz,
    ADD COLUMN dead_letter_job_id uuid,
    ADD CONSTRAINT job_history_dead_letter CHECK (dead_letter_job_id IS NULL OR status = 5);

DROP VIEW taskforge.every_job;
CREATE VIEW taskforge.every_job AS
SELECT
    project_id, id, queue_id, created_at, updated_at, NULL::timestamptz AS completed_at,
    scheduled_for, started_at, timeout_at, cancel_requested_at, attempt_count, max_attempts,
    payload_bytes, status, priority, timeout, job_type, worker_id, payload, progress,
    NULL::json AS result, attempts, labels, traceparent, tracestate, origin_job_id,
    origin_queue_id, origin_failed_at, NULL::uuid AS dead_letter_job_id
FROM taskforge.jobs
UNION ALL
SELECT
    project_id, id, queue_id, created_at, updated_at, completed_at,
    scheduled_for, started_at, NULL::timestamptz, cancel_requested_at, attempt_count, max_attempts,
    payload_bytes, status, priority, timeout, job_type, worker_id, payload, progress,
    result, attempts, labels, traceparent, tracestate, origin_job_id,
    origin_queue_id, origin_failed_at, dead_letter_job_id
FROM taskforge.job_history;

-- A claim on a limited queue counts what runs there: a range instead of the whole table.
CREATE INDEX queue_deltas_key ON taskforge.queue_deltas (project_id, queue_id, status);

-- How many leases started in each of the last 61 seconds: one row a queue with a rate limit.
CREATE TABLE taskforge.queue_starts (
    project_id  uuid NOT NULL,
    queue_id    uuid NOT NULL,
    seconds     bigint[] NOT NULL,   -- since 1970, ascending
    starts      integer[] NOT NULL,  -- aligned with them
    PRIMARY KEY (project_id, queue_id),
    CHECK (cardinality(seconds) = cardinality(starts))
) WITH (fillfactor = 50);

-- A session that is to get no more jobs.
ALTER TABLE taskforge.sessions ADD COLUMN draining boolean NOT NULL DEFAULT false;
