-- The schema that everything stands on. Hot and cold are apart: `jobs` holds unfinished jobs only
-- and stays small; a finished job moves to `job_history` in the statement that finishes it.
-- Every row of a tenant carries its project_id, and so does every key: no statement finds a row by
-- a bare id. Hot tables have no foreign keys, since each would lock the parent row on every insert.

CREATE SCHEMA IF NOT EXISTS taskforge;

CREATE TABLE taskforge.organisations (
    id          uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE taskforge.projects (
    id               uuid PRIMARY KEY,
    organisation_id  uuid NOT NULL REFERENCES taskforge.organisations,
    name             text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (organisation_id, name)
);

-- What calls without a project_id use.
INSERT INTO taskforge.organisations (id, name)
VALUES ('00000000-0000-7000-8000-000000000001', 'default');
INSERT INTO taskforge.projects (id, organisation_id, name)
VALUES ('00000000-0000-7000-8000-000000000002', '00000000-0000-7000-8000-000000000001', 'default');

-- A setting that is NULL means the default that the contract states.
CREATE TABLE taskforge.queues (
    project_id          uuid NOT NULL REFERENCES taskforge.projects,
    id                  uuid NOT NULL,
    name                text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    description         text NOT NULL DEFAULT '' CHECK (length(description) <= 1000),
    priority            smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 9),
    is_active           boolean NOT NULL DEFAULT true,
    max_retries         integer CHECK (max_retries BETWEEN 0 AND 99),
    timeout             interval CHECK (timeout BETWEEN '1 second' AND '7 days'),
    retry_delay         interval CHECK (retry_delay BETWEEN '0 seconds' AND '7 days'),
    max_retry_delay     interval CHECK (max_retry_delay BETWEEN '0 seconds' AND '7 days'),
    backoff_multiplier  double precision CHECK (backoff_multiplier BETWEEN 1 AND 100),
    retry_jitter        double precision CHECK (retry_jitter BETWEEN 0 AND 1),
    max_payload_bytes   integer CHECK (max_payload_bytes BETWEEN 1 AND 1048576),
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at          timestamptz,
    PRIMARY KEY (project_id, id)
);
CREATE UNIQUE INDEX queues_name ON taskforge.queues (project_id, name) WHERE deleted_at IS NULL;

-- Strictly increasing over all sessions of the server: CACHE must stay 1.
CREATE SEQUENCE taskforge.lease_seq AS bigint CACHE 1;

-- Unfinished jobs. Status: 1 pending, 2 scheduled, 3 processing.
CREATE TABLE taskforge.jobs (
    project_id           uuid NOT NULL,
    id                   uuid NOT NULL,
    queue_id             uuid NOT NULL,
    session_id           uuid,         -- the holder of the lease
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    scheduled_for        timestamptz,
    started_at           timestamptz,
    timeout_at           timestamptz,
    cancel_requested_at  timestamptz,
    lease_seq            bigint,       -- the fence: names the one valid lease
    last_seq             bigint,       -- the lease that was settled last, until the next lease ...
    last_status          smallint,     -- ... and the answer that its settle got
    attempt_count        integer NOT NULL DEFAULT 0,
    max_attempts         integer NOT NULL,
    payload_bytes        integer NOT NULL,
    status               smallint NOT NULL,
    priority             smallint NOT NULL,
    undelivered_count    smallint NOT NULL DEFAULT 0,  -- how often a lease never reached its worker
    timeout              interval,
    job_type             text NOT NULL,
    worker_id            text,
    payload              json NOT NULL,
    progress             json,
    attempts             jsonb NOT NULL DEFAULT '[]',
    labels               jsonb,
    traceparent          text,
    tracestate           text,
    PRIMARY KEY (project_id, id),
    CONSTRAINT jobs_status CHECK (status BETWEEN 1 AND 3),
    CONSTRAINT jobs_priority CHECK (priority BETWEEN 0 AND 9),
    CONSTRAINT jobs_attempts CHECK (attempt_count BETWEEN 0 AND max_attempts AND max_attempts BETWEEN 1 AND 100),
    CONSTRAINT jobs_payload_bytes CHECK (payload_bytes BETWEEN 0 AND 1048576),
    CONSTRAINT jobs_leased CHECK ((status = 3) = (lease_seq IS NOT NULL)),
    CONSTRAINT jobs_held CHECK ((status = 3) = (session_id IS NOT NULL)),
    CONSTRAINT jobs_running CHECK (status = 3 OR (timeout_at IS NULL AND cancel_requested_at IS NULL)),
    CONSTRAINT jobs_scheduled CHECK (status <> 2 OR scheduled_for IS NOT NULL),
    CONSTRAINT jobs_answer CHECK ((last_seq IS NULL) = (last_status IS NULL) AND (lease_seq IS NULL OR last_seq IS NULL))
) WITH (
    -- Each job is written three times and deleted: leave room on the page, and clean up often.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
-- The order of leasing within a queue, of every type and of one type: a subscription to a rare type
-- must not walk the backlog of the others.
CREATE INDEX jobs_ready ON taskforge.jobs (queue_id, priority DESC, created_at, id) WHERE status = 1;
CREATE INDEX jobs_ready_by_type ON taskforge.jobs (queue_id, job_type, priority DESC, created_at, id) WHERE status = 1;
CREATE INDEX jobs_due ON taskforge.jobs (scheduled_for) WHERE status = 2;
CREATE INDEX jobs_held ON taskforge.jobs (session_id) WHERE status = 3;
CREATE INDEX jobs_timeout ON taskforge.jobs (timeout_at) WHERE status = 3 AND timeout_at IS NOT NULL;
-- A queue's jobs, newest first. It does not begin with project_id, nor does any other index but the key:
-- else the planner, while it believes the table to be empty, may take it to find a job by its key.
CREATE INDEX jobs_listing ON taskforge.jobs (queue_id, created_at DESC, id DESC);

-- Finished jobs, by the UTC day on which they ended. Status: 4 succeeded, 5 failed, 6 cancelled.
CREATE TABLE taskforge.job_history (
    project_id           uuid NOT NULL,
    id                   uuid NOT NULL,
    queue_id             uuid NOT NULL,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    completed_at         timestamptz NOT NULL,
    scheduled_for        timestamptz,
    started_at           timestamptz,
    cancel_requested_at  timestamptz,
    last_seq             bigint,
    last_status          smallint,
    attempt_count        integer NOT NULL,
    max_attempts         integer NOT NULL,
    payload_bytes        integer NOT NULL,
    status               smallint NOT NULL,
    priority             smallint NOT NULL,
    timeout              interval,
    job_type             text NOT NULL,
    worker_id            text,
    payload              json NOT NULL,
    progress             json,
    result               json,
    attempts             jsonb NOT NULL,
    labels               jsonb,
    traceparent          text,
    tracestate           text,
    CONSTRAINT job_history_status CHECK (status BETWEEN 4 AND 6),
    CONSTRAINT job_history_result CHECK (result IS NULL OR status = 4)
) PARTITION BY RANGE (completed_at);
CREATE INDEX job_history_key ON taskforge.job_history (project_id, id);
CREATE INDEX job_history_listing ON taskforge.job_history (queue_id, created_at DESC, id DESC);

-- Catches what no daily partition takes; the scheduler makes those seven days ahead.
CREATE TABLE taskforge.job_history_default PARTITION OF taskforge.job_history DEFAULT;

-- The partitions of the first days, so that history does not depend on who starts first.
DO $$
DECLARE
    today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
    FOR ahead IN 0..7 LOOP
        EXECUTE format(
            'CREATE TABLE taskforge.%I PARTITION OF taskforge.job_history FOR VALUES FROM (%L) TO (%L)',
            'job_history_' || to_char(today + ahead, 'YYYYMMDD'),
            (today + ahead)::text || ' 00:00:00+00',
            (today + ahead + 1)::text || ' 00:00:00+00'
        );
    END LOOP;
END
$$;

-- Both tables as one, for browsing: read by one statement, a job that moves between them is neither
-- missed nor seen twice. The planner reads each below it by its own index.
CREATE VIEW taskforge.every_job AS
SELECT
    project_id, id, queue_id, created_at, updated_at, NULL::timestamptz AS completed_at,
    scheduled_for, started_at, timeout_at, cancel_requested_at, attempt_count, max_attempts,
    payload_bytes, status, priority, timeout, job_type, worker_id, payload, progress,
    NULL::json AS result, attempts, labels, traceparent, tracestate
FROM taskforge.jobs
UNION ALL
SELECT
    project_id, id, queue_id, created_at, updated_at, completed_at,
    scheduled_for, started_at, NULL::timestamptz, cancel_requested_at, attempt_count, max_attempts,
    payload_bytes, status, priority, timeout, job_type, worker_id, payload, progress,
    result, attempts, labels, traceparent, tracestate
FROM taskforge.job_history;

-- How many jobs each queue has in each status: what was folded, plus the deltas since. Each change
-- of a job appends its delta in the same transaction, so that no two writers meet on a counter.
CREATE TABLE taskforge.queue_counts (
    project_id  uuid NOT NULL,
    queue_id    uuid NOT NULL,
    status      smallint NOT NULL CHECK (status BETWEEN 1 AND 6),
    n           bigint NOT NULL,
    PRIMARY KEY (project_id, queue_id, status)
) WITH (fillfactor = 50);
CREATE TABLE taskforge.queue_deltas (
    project_id  uuid NOT NULL,
    queue_id    uuid NOT NULL,
    status      smallint NOT NULL CHECK (status BETWEEN 1 AND 6),
    n           bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- The holders of leases: one row a worker process. One heartbeat renews one row, whatever it holds.
-- No index on expires_at: each heartbeat would rewrite them all, and the sweep reads a small table.
CREATE TABLE taskforge.sessions (
    project_id           uuid NOT NULL,
    session_id           uuid NOT NULL,
    worker_id            text NOT NULL DEFAULT '',
    lease_duration       interval NOT NULL,
    expires_at           timestamptz,
    must_heartbeat       boolean NOT NULL DEFAULT false,  -- was rescued: gets nothing until it speaks
    call_id              uuid NOT NULL,                   -- its latest LeaseJobs or AcquireJobs ...
    call_is_stream       boolean NOT NULL,
    call_is_open         boolean NOT NULL,
    server_id            uuid NOT NULL,                   -- ... and the replica that serves it
    max_in_flight        integer NOT NULL CHECK (max_in_flight >= 1),
    last_sequence        bigint NOT NULL DEFAULT 0,
    last_heartbeat_at    timestamptz,
    listed               bigint[] NOT NULL DEFAULT '{}',  -- held leases that a heartbeat has listed
    omitted              bigint[] NOT NULL DEFAULT '{}',  -- held leases that the last one left out
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (project_id, session_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Which job_service replicas live. One that no longer renews its row has lost its streams.
CREATE TABLE taskforge.servers (
    server_id    uuid PRIMARY KEY,
    alive_until  timestamptz NOT NULL,
    address      text NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- What repeated creations are answered from, beyond the job's own life.
CREATE TABLE taskforge.request_ids (
    project_id    uuid NOT NULL,
    request_id    text NOT NULL CHECK (length(request_id) BETWEEN 1 AND 128),
    content_hash  bytea NOT NULL,
    job_ids       uuid[] NOT NULL,  -- one an item, NULL where none was created
    errors        bytea,            -- the answer's serialised errors, where an item got one
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (project_id, request_id)
);
CREATE INDEX request_ids_age ON taskforge.request_ids (created_at);
